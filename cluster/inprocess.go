package cluster

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
)

// InProcess reaches the server without a network and without encoding: a put
// costs a third of what it does through gRPC. Calls go through the server's own
// request checks and its quota, as those of any client do, and fail with the same
// errors. They share memory with the server: what was sent or received must not
// be changed.
type InProcess struct {
	KV    pb.KVClient
	Lease pb.LeaseClient
	Watch clientv3.Watcher
}

// InProcess may be used until Close. Its Watch must be closed before.
func (e *Embedded) InProcess() InProcess {
	s := e.etcd.Server
	return InProcess{
		KV:    adapter.KvServerToKvClient(v3rpc.NewQuotaKVServer(s)),
		Lease: adapter.LeaseServerToLeaseClient(v3rpc.NewQuotaLeaseServer(s)),
		Watch: clientv3.NewWatchFromWatchClient(adapter.WatchServerToWatchClient(v3rpc.NewWatchServer(s)), nil),
	}
}

// MaxTxnOps is how many operations the server takes in a transaction. It is more
// than etcd's default of 128, so that more starts and stops share a round.
func (e *Embedded) MaxTxnOps() int { return maxTxnOps }

const maxTxnOps = 1024
