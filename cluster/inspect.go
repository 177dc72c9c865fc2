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

// inspectTimeout bounds the questions to one member.
const inspectTimeout = time.Second

// A MemberStatus is one member of etcd as it sees itself.
type MemberStatus struct {
	Name            string // its id in hex if it has none
	Leader          bool
	Version         string
	DBSize, DBInUse int64    // bytes
	Lag             uint64   // raft entries that it has applied fewer than the leader
	Alarms          []string // of its own
	Err             error    // nothing but the name is known; a sentence for people
}

var errNoAnswer = errors.New("it does not answer")

// Inspect asks every member of etcd, all at once. endpoints are addresses that are
// known to reach some of them, besides those that they give as their own. One that
// does not answer has an Err and holds nobody up for longer than a second.
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
	out := make([]MemberStatus, len(list.Members))
	for i, m := range list.Members {
		out[i] = statusOf(m, answers)
	}
	slices.SortFunc(out, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// askStatus asks all addresses, and returns what members answered, by their ids.
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

// alarmText is how a member writes an alarm, of itself or another.
var alarmText = regexp.MustCompile(`memberID:(\d+)\s+alarm:(\w+)`)

// alarmsOf are the alarms that a member itself has raised.
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
