package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// inspectTimeout is the timeout of the requests to one member.
const inspectTimeout = time.Second

// A MemberStatus is the status of one member of etcd, from that member.
type MemberStatus struct {
	Name            string // its id in hex if it has none
	Leader          bool
	Version         string
	DBSize, DBInUse int64    // bytes
	Lag             uint64   // number of raft entries that it is behind the leader
	Alarms          []string // of its own
	Err             error    // if not nil, only the name is known; a readable sentence
}

var errNoAnswer = errors.New("it does not answer")

// Inspect returns the status of every member of etcd. It queries all members at the same time,
// at endpoints and at the addresses that they advertise. A member that does not answer within
// a second has an Err.
func Inspect(ctx context.Context, c *clientv3.Client, endpoints []string) ([]MemberStatus, error) {
	call, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	list, err := c.MemberList(call, clientv3.WithSerializable())
	if err != nil {
		return nil, fmt.Errorf("list etcd members: %w", err)
	}
	asked := slices.Clone(endpoints)
	for _, m := range list.Members {
		asked = append(asked, m.ClientURLs...)
	}
	slices.Sort(asked)
	answers := askStatus(ctx, c, slices.Compact(asked))
	members := list.Members
	if slices.ContainsFunc(members, isProxy) { // a proxy does not list the members behind it
		members = nil
		for id := range answers {
			members = append(members, &pb.Member{ID: id})
		}
	}
	out := make([]MemberStatus, len(members))
	for i, m := range members {
		out[i] = statusOf(m, answers)
	}
	slices.SortFunc(out, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// askStatus queries all addresses and returns the answers by the ids of the members.
func askStatus(ctx context.Context, c *clientv3.Client, endpoints []string) map[uint64]*clientv3.StatusResponse {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	answers := make(map[uint64]*clientv3.StatusResponse)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, e := range endpoints {
		asking.Go(func() {
			st, err := c.Status(ctx, e)
			if err != nil {
				return // another address may lead to the same member
			}
			mu.Lock()
			defer mu.Unlock()
			answers[st.Header.GetMemberId()] = st
		})
	}
	asking.Wait()
	return answers
}

func statusOf(m *pb.Member, answers map[uint64]*clientv3.StatusResponse) MemberStatus {
	s := MemberStatus{Name: m.GetName(), Alarms: []string{}}
	if s.Name == "" {
		s.Name = strconv.FormatUint(m.GetID(), 16)
	}
	st := answers[m.GetID()]
	if st == nil {
		s.Err = errNoAnswer
		return s
	}
	s.Leader, s.Version = st.Leader == m.GetID(), st.Version
	s.DBSize, s.DBInUse = st.DbSize, st.DbSizeInUse
	if leader := answers[st.Leader]; leader != nil && leader.RaftAppliedIndex > st.RaftAppliedIndex {
		s.Lag = leader.RaftAppliedIndex - st.RaftAppliedIndex
	}
	s.Alarms = alarmsOf(m.GetID(), st.Errors)
	return s
}

// alarmText parses an alarm in the status of a member, about itself or another.
var alarmText = regexp.MustCompile(`memberID:(\d+)\s+alarm:(\w+)`)

// alarmsOf returns the alarms that the member itself has raised.
func alarmsOf(id uint64, texts []string) []string {
	out := []string{}
	for _, text := range texts {
		m := alarmText.FindStringSubmatch(text)
		if m != nil && m[1] == strconv.FormatUint(id, 10) {
			out = append(out, m[2])
		}
	}
	return out
}
