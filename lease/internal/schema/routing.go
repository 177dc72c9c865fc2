package schema

import (
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// ErrRouting means that the routing record is not the one that the caller used. Nothing
// was written.
var ErrRouting = errors.New("lease: the routing of users has changed")

// ErrEnded means that a stream has ended.
var ErrEnded = errors.New("lease: stream has ended")

// A RoutingRecord is the put of the key that says how users are spread over shards.
// The zero RoutingRecord means that there is no such key.
type RoutingRecord struct {
	Value    []byte
	Revision int64 // etcd revision of the put
}

// DecodeRoutingRecord returns the routing record in kv, which is nil if the key is missing.
func DecodeRoutingRecord(kv *mvccpb.KeyValue) *RoutingRecord {
	if kv == nil {
		return &RoutingRecord{}
	}
	return &RoutingRecord{kv.Value, kv.ModRevision}
}
