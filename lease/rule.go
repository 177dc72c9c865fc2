package lease

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// rule is what holds for one user, and which keys say so.
type rule struct {
	limit int
	evict bool // a start may ask for ReplaceOldest
	count Counting

	override int64     // the revision of the user's override; 0 if he has none
	plans    [2]source // that were looked up; of the second there may be none
}

// source is a plan that was looked up, and its last put; 0 if there is no such
// plan, which says something as well.
type source struct {
	plan string
	mod  int64
}

// said is what a start was told about its user, by the service that calls or by
// the user's token.
type said struct {
	plan  string // by the service: it must exist
	grant string // by a token, or remembered: else it is none
	limit *int
}

// ruleSource is where rules are looked up: the view, or an answer of etcd. A rule
// that is nil but has a revision is one that nobody can read.
type ruleSource interface {
	override(user string) (*Override, int64)
	plan(name string) (*Plan, int64)
}

// resolve finds the rule for user. His override goes before what was said of
// him, that before the default plan, and that before the node's own limit, with
// which a start may ask for ReplaceOldest.
func (l *Limiter) resolve(from ruleSource, user string, s said) (rule, error) {
	var r rule
	o, mod := from.override(user)
	r.override = mod
	if o == nil {
		o = &noOverride
	}
	name := cmp.Or(o.Plan, s.plan, s.grant, DefaultPlan)
	p, mod := from.plan(name)
	r.plans[0] = source{name, mod}
	if p == nil && o.Plan == "" && s.plan != "" {
		return rule{}, fmt.Errorf("%w: %q", ErrNoPlan, s.plan)
	}
	if p == nil && name != DefaultPlan {
		p, mod = from.plan(DefaultPlan)
		r.plans[1] = source{DefaultPlan, mod}
	}
	if p == nil {
		p = &l.usual
	}
	r.limit, r.evict, r.count = p.Limit, p.OnLimit == ReplaceOldest, p.Count
	switch {
	case o.Limit != nil:
		r.limit = *o.Limit
	case o.Plan == "" && s.limit != nil:
		r.limit = min(max(*s.limit, 0), MaxLimit)
	}
	return r, nil
}

var noOverride Override // that sets nothing

// guards are the conditions under which the rule is still what it was.
func (l *Limiter) guards(user string, r rule) []*pb.Compare {
	out := []*pb.Compare{writtenAt(l.keys.override(user), r.override)}
	for _, from := range r.plans {
		switch {
		case from.plan == DefaultPlan:
			out = append(out, l.defaultGuard(from.mod))
		case from.plan != "":
			out = append(out, writtenAt(l.keys.plan(from.plan), from.mod))
		}
	}
	return out
}

// defaultGuard is the condition that nearly every start has, made once.
func (l *Limiter) defaultGuard(mod int64) *pb.Compare {
	g := l.guard.Load()
	if g == nil || g.GetModRevision() != mod {
		g = writtenAt(l.keys.plan(DefaultPlan), mod)
		l.guard.Store(g)
	}
	return g
}

// ruleOf is the rule for user as far as this node knows, for showing it. value is
// the record of one of the user's streams, which remembers what its start was
// told; nil if there is none.
func (l *Limiter) ruleOf(user string, value []byte) rule {
	r, _ := l.resolve(l.view.rules, user, saidIn(value)) // fails only for a plan that must exist
	return r
}

// saidIn is what the start of a stream was told. Few records say anything, and
// no text in a record can look like these names: its quotes are escaped.
func saidIn(value []byte) said {
	if !bytes.Contains(value, []byte(`,"p":"`)) && !bytes.Contains(value, []byte(`,"m":`)) {
		return said{}
	}
	r := recordOf(value)
	return said{grant: r.Plan, limit: r.Limit}
}

// counted is what streams count for under the rule.
func (r rule) counted(hs []held) int { return tallier{count: r.count}.counted(hs) }

// newest is the record of the stream that started last; nil if there is none.
func newest(hs []held) []byte {
	if len(hs) == 0 {
		return nil
	}
	return hs[len(hs)-1].value
}

// each reports whether every stream counts alone.
func (c Counting) each() bool { return c != CountContent && c != CountDevices }

// unit is what a stream counts as that plays content on device.
func (c Counting) unit(device, content string) string {
	switch c {
	case CountContent:
		return content
	case CountDevices:
		return device
	}
	return ""
}

// Rules are stored as JSON. Members that a later version may add are ignored.
type (
	storedPlan struct {
		Limit   *int     `json:"limit"`
		OnLimit OnLimit  `json:"onLimit,omitempty"`
		Count   Counting `json:"count,omitempty"`
	}
	storedOverride struct {
		Limit *int   `json:"limit,omitempty"`
		Plan  string `json:"plan,omitempty"`
	}
)

func (p Plan) value() []byte { return stored(storedPlan{&p.Limit, p.OnLimit, p.Count}) }

func (o Override) value() []byte { return stored(storedOverride(o)) }

func stored(rule any) []byte {
	v, err := json.Marshal(rule)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return v
}

// planOf reads a stored plan; nil if it is none.
func planOf(value []byte) *Plan {
	var s storedPlan
	if json.Unmarshal(value, &s) != nil || s.Limit == nil {
		return nil
	}
	p := Plan{*s.Limit, s.OnLimit, s.Count}.WithDefaults()
	if p.check() != nil {
		return nil
	}
	return &p
}

// overrideOf reads a stored override; nil if it is none.
func overrideOf(value []byte) *Override {
	var s storedOverride
	if json.Unmarshal(value, &s) != nil || Override(s).check() != nil {
		return nil
	}
	o := Override(s)
	return &o
}
