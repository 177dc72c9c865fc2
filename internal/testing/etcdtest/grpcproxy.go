package etcdtest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// StartGRPCProxy runs etcd's gRPC proxy in front of the given endpoints, as
// "etcd grpc-proxy start" does without further flags, and returns its address
// as an endpoint. In particular it passes no progress requests of watches on,
// and it gives its own address as the only member's. It ends with the test.
func StartGRPCProxy(tb testing.TB, endpoints ...string) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err, "start a gRPC proxy")
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
		DialOptions: []grpc.DialOption{ // these replace the client's own, as in etcd's command
			grpc.WithUnaryInterceptor(grpcproxy.AuthUnaryClientInterceptor),
			grpc.WithStreamInterceptor(grpcproxy.AuthStreamClientInterceptor),
		},
	})
	require.NoError(tb, err, "start a gRPC proxy")
	// The watch proxy and the lease proxy each repeat a watch, which etcd refuses where it requires
	// authentication. If two watches of one gRPC stream are refused at the same time, the client's
	// Close does not return. Other metadata makes the client use another stream.
	ctx, cancel := context.WithCancel(c.Ctx())
	leaseCtx := metadata.AppendToOutgoingContext(ctx, "proxy", "lease")
	kv, kvDone := grpcproxy.NewKvProxy(c)
	watch, watchDone := grpcproxy.NewWatchProxy(ctx, zap.NewNop(), c)
	members, membersDone := grpcproxy.NewClusterProxy(zap.NewNop(), c, l.Addr().String(), "")
	lease, leaseDone := grpcproxy.NewLeaseProxy(leaseCtx, c)
	s := grpc.NewServer()
	pb.RegisterKVServer(s, kv)
	pb.RegisterWatchServer(s, watch)
	pb.RegisterClusterServer(s, members)
	pb.RegisterLeaseServer(s, lease)
	pb.RegisterMaintenanceServer(s, grpcproxy.NewMaintenanceProxy(c))
	pb.RegisterAuthServer(s, grpcproxy.NewAuthProxy(c))
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) }) // until Stop
	tb.Cleanup(func() {
		s.Stop()
		serving.Wait()
		cancel() // before Close, which does not return if a watch is refused at that moment
		<-watchDone
		<-leaseDone
		_ = c.Close() // its context's end is an error to it
		<-kvDone
		<-membersDone
	})
	return "http://" + l.Addr().String()
}
