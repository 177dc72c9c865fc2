package replica

import (
	"context"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// When a watch stream breaks, etcd's client opens another one, resumes the watch and
// does not report it. The etcd behind the new stream may have been restored from a
// backup. So a replica's stream is opened only once, and the replica compares the
// histories before it creates the next watch.

// NewWatcher returns a watcher on the connection of c for a replica.
func NewWatcher(c *clientv3.Client) clientv3.Watcher {
	return clientv3.NewWatchFromWatchClient(singleOpenClient{pb.NewWatchClient(c.ActiveConnection())}, c)
}

// withSingleOpen returns a context for a watch whose stream is opened only once.
func withSingleOpen(ctx context.Context) context.Context {
	return context.WithValue(ctx, singleOpenKey{}, new(atomic.Bool))
}

type singleOpenKey struct{}

// A singleOpenClient fails the second stream of a context of [withSingleOpen].
type singleOpenClient struct{ pb.WatchClient }

// Watch implements WatchClient.
func (c singleOpenClient) Watch(ctx context.Context, o ...grpc.CallOption) (pb.Watch_WatchClient, error) {
	opened, once := ctx.Value(singleOpenKey{}).(*atomic.Bool)
	if once && opened.Load() {
		return nil, status.Error(codes.Aborted, "the watch stream broke")
	}
	s, err := c.WatchClient.Watch(ctx, o...)
	if err == nil && once {
		opened.Store(true)
	}
	return s, err
}
