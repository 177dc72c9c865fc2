package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// fakeKV answers Put with a function of the test.
type fakeKV struct {
	pb.UnimplementedKVServer
	put func(context.Context) error
}

func (f *fakeKV) Put(ctx context.Context, _ *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{}}, f.put(ctx)
}

type noLease struct{ pb.UnimplementedLeaseServer }

type noWatch struct{ pb.UnimplementedWatchServer }

// fakeInProcess returns an in-process client of a fake server. The test must close it.
func fakeInProcess(put func(context.Context) error) *inProcess {
	return newInProcess(&fakeKV{put: put}, noLease{}, noWatch{})
}

// Errors that a healthy server does not give on demand, returned by a server of
// this test through both ways.
func TestInProcess_ExplainsAsGRPCDoes(t *testing.T) {
	var says error
	kv := &fakeKV{put: func(context.Context) error { return says }}
	ln := bufconn.Listen(1 << 10)
	srv := grpc.NewServer()
	pb.RegisterKVServer(srv, kv)
	go func() { _ = srv.Serve(ln) }() // ends by Stop
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient("passthrough:///fake",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }),
		grpc.WithChainUnaryInterceptor(boundCalls(defaultCallTimeout)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	local := newInProcess(kv, noLease{}, noWatch{})
	t.Cleanup(local.close)

	for _, says = range []error{
		nil, rpctypes.ErrTooManyRequests, rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCStopped,
		rpctypes.ErrGRPCNoSpace, rpctypes.ErrGRPCCanceled, rpctypes.ErrGRPCDeadlineExceeded,
		rpctypes.ErrGRPCTimeoutDueToLeaderFail, rpctypes.ErrGRPCCorrupt,
		context.DeadlineExceeded, context.Canceled, errors.New("raft: stopped"),
		status.Error(codes.Unknown, "lease: not primary"),
	} {
		for name, ctx := range map[string]func() (context.Context, context.CancelFunc){
			"no-deadline": func() (context.Context, context.CancelFunc) { return t.Context(), func() {} },
			"deadline": func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(t.Context(), time.Minute)
			},
		} {
			t.Run(fmt.Sprint(says, name), func(t *testing.T) {
				mine, cancel := ctx()
				defer cancel()
				_, remote := pb.NewKVClient(conn).Put(mine, &pb.PutRequest{})
				_, here := local.calls().KV.Put(mine, &pb.PutRequest{})
				assert.Equal(t, status.Code(remote), status.Code(here))
				assert.Equal(t, status.Convert(remote).Message(), status.Convert(here).Message())
				assert.Equal(t, rpctypes.Error(remote) == nil, rpctypes.Error(here) == nil)
				assert.Equal(t, errors.Is(remote, context.DeadlineExceeded), errors.Is(here, context.DeadlineExceeded))
				if says == rpctypes.ErrTooManyRequests { //nolint:errorlint // the row, not a kind of error
					require.ErrorIs(t, rpctypes.Error(here), rpctypes.ErrTooManyRequests)
				}
			})
		}
	}
}

// A server that hangs ignores the context: a read may wait for the disk.
func TestInProcess_AnswersAtTheDeadline(t *testing.T) {
	before := goleak.IgnoreCurrent()
	release := make(chan struct{})
	p := fakeInProcess(func(context.Context) error { <-release; return nil })
	p.timeout = 50 * time.Millisecond
	kv := p.calls().KV

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := kv.Put(ctx, &pb.PutRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
	_, err = kv.Put(ctx, &pb.PutRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded, "not even begun")

	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = kv.Put(ctx, &pb.PutRequest{})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, codes.Canceled, status.Code(err))

	_, err = kv.Put(t.Context(), &pb.PutRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded, "the bound of a call without a deadline")
	require.ErrorContains(t, err, pb.KV_Put_FullMethodName)
	close(release)
	p.close()
	goleak.VerifyNone(t, before)
}

// etcd reports a proposal whose context ended as its own timeout.
func TestInProcess_DeadlineOfAWrite(t *testing.T) {
	p := fakeInProcess(func(ctx context.Context) error {
		<-ctx.Done()
		return rpctypes.ErrGRPCTimeout
	})
	t.Cleanup(p.close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := p.calls().KV.Put(ctx, &pb.PutRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	p.timeout = 20 * time.Millisecond
	_, err = p.calls().KV.Put(t.Context(), &pb.PutRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestInProcess_CloseAnswersCallersAndWaitsForTheServer(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	p := fakeInProcess(func(context.Context) error { close(entered); <-release; return nil })
	errc := make(chan error, 1)
	go func() {
		_, err := p.calls().KV.Put(t.Context(), &pb.PutRequest{})
		errc <- err
	}()
	<-entered
	closed := make(chan struct{})
	go func() { p.close(); close(closed) }()
	require.ErrorIs(t, rpctypes.Error(<-errc), rpctypes.ErrStopped)
	_, err := p.calls().KV.Put(t.Context(), &pb.PutRequest{})
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrStopped)
	select {
	case <-closed:
		t.Fatal("closed while the server was at work")
	default:
	}
	close(release)
	<-closed
}
