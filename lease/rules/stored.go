package rules

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// Stored are the rules in a response of etcd, at one revision. It is a [policy.Source].
type Stored struct {
	keys schema.Keys
	kvs  map[string]*mvccpb.KeyValue // has no entry for a key that does not exist
}

// NewStored returns the rules in responses.
func NewStored(keys schema.Keys, responses []*pb.ResponseOp) Stored {
	s := Stored{keys, map[string]*mvccpb.KeyValue{}}
	s.add(responses)
	return s
}

func (s Stored) add(responses []*pb.ResponseOp) {
	for _, resp := range responses {
		if inner := resp.GetResponseTxn(); inner != nil {
			s.add(inner.Responses)
		}
		for _, kv := range resp.GetResponseRange().GetKvs() {
			s.kvs[string(kv.Key)] = kv
		}
	}
}

// Override implements [policy.Source].
func (s Stored) Override(user string) (*policy.Override, int64) {
	kv := s.kvs[s.keys.Override(user)]
	if kv == nil {
		return nil, 0
	}
	return schema.DecodeOverride(kv.Value), kv.ModRevision
}

// Plan implements [policy.Source].
func (s Stored) Plan(name string) (*policy.Plan, int64) {
	kv := s.kvs[s.keys.Plan(name)]
	if kv == nil {
		return nil, 0
	}
	return schema.DecodePlan(kv.Value), kv.ModRevision
}

// Guards returns the conditions that the rule of user has not changed.
func (s *Store) Guards(user string, r policy.Rule) []*pb.Compare {
	out := []*pb.Compare{etcdop.ModRevisionIs(s.cfg.Keys.Override(user), r.Override)}
	for _, p := range r.Plans {
		switch {
		case p.Plan == policy.DefaultPlan:
			out = append(out, s.defaultPlanGuard(p.Revision))
		case p.Plan != "":
			out = append(out, etcdop.ModRevisionIs(s.cfg.Keys.Plan(p.Plan), p.Revision))
		}
	}
	return out
}

// defaultPlanGuard returns the condition that the default plan has not changed, which
// nearly every start has. The condition is cached.
func (s *Store) defaultPlanGuard(revision int64) *pb.Compare {
	g := s.cachedGuard.Load()
	if g == nil || g.GetModRevision() != revision {
		g = etcdop.ModRevisionIs(s.cfg.Keys.Plan(policy.DefaultPlan), revision)
		s.cachedGuard.Store(g)
	}
	return g
}
