package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// healthTimeout is the timeout of the requests about etcd's health.
const healthTimeout = 2 * time.Second

// Ready returns nil if etcd can serve this service now: it answers a linearizable read below
// prefix, and no alarm prevents writes. The error is one readable sentence, without addresses.
func Ready(ctx context.Context, c *clientv3.Client, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if _, err := c.Get(ctx, prefix+"/", clientv3.WithKeysOnly()); err != nil {
		return &healthError{explain(err), err}
	}
	st, err := pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return nil //nolint:nilerr // the read has shown that etcd serves
	}
	for _, alarm := range st.GetErrors() {
		if strings.Contains(alarm, pb.AlarmType_NOSPACE.String()) {
			return &healthError{sentence: "etcd is full and refuses writes: raise its quota or compact and " +
				"defragment it, then disarm the NOSPACE alarm"}
		}
		if strings.Contains(alarm, pb.AlarmType_CORRUPT.String()) {
			return &healthError{sentence: "etcd found its data corrupt and refuses writes: " +
				"replace the member that is at fault, then disarm the CORRUPT alarm"}
		}
	}
	return nil
}

// A healthError is the reason why etcd cannot serve, in one sentence.
type healthError struct {
	sentence string
	err      error // error of etcd's client; nil for an alarm
}

func (e *healthError) Error() string { return e.sentence }
func (e *healthError) Unwrap() error { return e.err }

// explain converts an error of etcd's client to a readable sentence.
func explain(err error) string {
	known := rpctypes.Error(err)
	for _, lost := range []error{
		rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotLeader, rpctypes.ErrTimeout,
		rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
	} {
		if errors.Is(known, lost) {
			return "etcd has no leader: too few of its members are up or reach each other"
		}
	}
	switch {
	case errors.Is(known, rpctypes.ErrPermissionDenied):
		return "etcd does not let this node read its keys: check the role of its user"
	case errors.Is(known, rpctypes.ErrAuthFailed), errors.Is(known, rpctypes.ErrUserEmpty):
		return "etcd does not accept this node's user or password"
	case errors.Is(known, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)):
		return "etcd's member here is a learner, which does not serve reads: name members that vote"
	case errors.Is(err, context.Canceled):
		return "the check was broken off"
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return fmt.Sprintf("etcd did not answer within %v", healthTimeout)
	case status.Code(err) == codes.Unavailable:
		return "etcd cannot be reached"
	}
	return "etcd refused a read"
}

// Info describes an etcd cluster, from one of its members.
type Info struct {
	Leader  string // the member's name, or its id in hex; "" without a leader
	Members int
	Version string // of the member that answered
}

// Describe queries the member that c is connected to. It works without a quorum.
func Describe(ctx context.Context, c *clientv3.Client) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	st, err := pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return Info{}, fmt.Errorf("describe etcd: %w", err)
	}
	members, err := c.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return Info{}, fmt.Errorf("list etcd members: %w", err)
	}
	info := Info{Members: len(members.Members), Version: st.GetVersion()}
	if st.GetLeader() == 0 {
		return info, nil
	}
	info.Leader = strconv.FormatUint(st.GetLeader(), 16)
	for _, m := range members.Members {
		if m.GetID() == st.GetLeader() && m.GetName() != "" {
			info.Leader = m.GetName()
		}
	}
	return info, nil
}
