package lease

import (
	"maps"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// rulebook holds the rules that a view follows.
type rulebook struct {
	mu        sync.RWMutex
	plans     map[string]ruled[Plan]
	overrides map[string]ruled[Override]
}

// ruled is a rule and its last put; nil if nobody can read it.
type ruled[T any] struct {
	rule *T
	mod  int64
	gen  uint32 // of the list that saw it last
}

func newRulebook() *rulebook {
	return &rulebook{plans: map[string]ruled[Plan]{}, overrides: map[string]ruled[Override]{}}
}

func (b *rulebook) override(user string) (*Override, int64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	r := b.overrides[user]
	return r.rule, r.mod
}

func (b *rulebook) plan(name string) (*Plan, int64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	r := b.plans[name]
	return r.rule, r.mod
}

// empty reports whether no user has a rule of his own, or may have one by name.
func (b *rulebook) empty() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.overrides) == 0
}

// put takes a rule in; keys that are none are left out.
func (b *rulebook) put(k keys, kv *mvccpb.KeyValue, gen uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if user, ok := strings.CutPrefix(string(kv.Key), k.overrides()); ok {
		b.overrides[user] = ruled[Override]{overrideOf(kv.Value), kv.ModRevision, gen}
	} else if name, ok := strings.CutPrefix(string(kv.Key), k.plans()); ok {
		b.plans[name] = ruled[Plan]{planOf(kv.Value), kv.ModRevision, gen}
	}
}

func (b *rulebook) remove(k keys, key []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if user, ok := strings.CutPrefix(string(key), k.overrides()); ok {
		delete(b.overrides, user)
	} else if name, ok := strings.CutPrefix(string(key), k.plans()); ok {
		delete(b.plans, name)
	}
}

// sweep drops what the list of generation gen did not see.
func (b *rulebook) sweep(gen uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.overrides, func(_ string, r ruled[Override]) bool { return r.gen != gen })
	maps.DeleteFunc(b.plans, func(_ string, r ruled[Plan]) bool { return r.gen != gen })
}

// all returns the plans that can be read.
func (b *rulebook) all() map[string]Plan {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make(map[string]Plan, len(b.plans))
	for name, r := range b.plans {
		if r.rule != nil {
			out[name] = *r.rule
		}
	}
	return out
}

// readRules are rules that etcd answered with, at one revision.
type readRules struct {
	keys keys
	kvs  map[string]*mvccpb.KeyValue // nil for keys that were read and are not there
}

func (r readRules) override(user string) (*Override, int64) {
	kv := r.kvs[r.keys.override(user)]
	if kv == nil {
		return nil, 0
	}
	return overrideOf(kv.Value), kv.ModRevision
}

func (r readRules) plan(name string) (*Plan, int64) {
	kv := r.kvs[r.keys.plan(name)]
	if kv == nil {
		return nil, 0
	}
	return planOf(kv.Value), kv.ModRevision
}
