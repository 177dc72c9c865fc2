// Package limitcheck checks the history of etcd against plans with several limits. It
// shares no code with the service. It reads keys and values as docs/ARCHITECTURE.md
// describes them, and decides by the rules in the comment of package policy.
package limitcheck

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A Change is a change of one key in a revision.
type Change struct {
	Key   string
	Value []byte
	Put   bool // otherwise the key was deleted
}

// A Checker has the streams and the rules as of a revision. Its methods must not be called
// concurrently.
type Checker struct {
	prefix    string
	fallback  Plan
	plans     map[string]Plan
	overrides map[string]override
	users     map[string]userStreams

	// Totals, so that a test can require that something was checked.
	Admitted int // streams under plans with several limits
	Evicting int // of these, those whose starts evicted streams
	Compared int // of these, those whose evicted streams were compared with the expected ones
}

type override struct {
	Limit  *int
	Plan   string
	Limits map[string]int // the numbers of named limits
}

// userStreams are never modified.
type userStreams struct {
	now []*Stream // oldest first
	// gone are the streams that ended while the user had others, in the order of their ends.
	gone []*Stream
}

// New returns a Checker. fallback is the plan of users without another.
func New(prefix string, fallback Plan) *Checker {
	return &Checker{
		prefix: prefix + "/", fallback: fallback, plans: map[string]Plan{}, overrides: map[string]override{},
		users: map[string]userStreams{},
	}
}

// A change is what a revision changes for one user.
type change struct {
	gone []*Stream
	put  *Stream
}

// Apply applies the changes of the next revision, and returns what is wrong with it.
func (c *Checker) Apply(revision int64, changes []Change) (wrong []string) {
	errorf := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("revision %d: ", revision)+fmt.Sprintf(format, args...))
	}
	reasons, users := map[string]string{}, map[string]*change{}
	for _, e := range changes {
		key := strings.TrimPrefix(e.Key, c.prefix)
		path, isStream := strings.CutPrefix(key, "users/")
		switch {
		case strings.HasPrefix(key, "ended/") && e.Put:
			var tombstones []struct{ N, R string }
			if err := json.Unmarshal(e.Value, &tombstones); err != nil {
				errorf("%s has no tombstones: %v", key, err)
			}
			for _, t := range tombstones {
				reasons[t.N] = t.R
			}
		case isStream:
			user, _, _ := strings.Cut(path, "/")
			if users[user] == nil {
				users[user] = &change{}
			}
			if err := c.applyStream(user, users[user], e, revision); err != nil {
				errorf("%v", err)
			}
		default:
			if err := c.applyRule(key, e); err != nil {
				errorf("%v", err)
			}
		}
	}
	for user, ch := range users {
		before := c.users[user]
		after := userStreams{gone: before.gone}
		for _, s := range ch.gone {
			s.ended = revision
		}
		for _, s := range before.now {
			if !slices.Contains(ch.gone, s) {
				after.now = append(after.now, s)
			}
		}
		if ch.put != nil {
			remaining := after.now
			after.now = append(slices.Clone(remaining), ch.put)
			a := c.admission(user, ch, before, remaining, reasons)
			for _, text := range a.check(c) {
				errorf("%s: %s: %v", user, text, ch.put)
			}
		}
		after.gone = append(after.gone, ch.gone...)
		if c.users[user] = after; len(after.now) == 0 {
			delete(c.users, user)
		}
	}
	return wrong
}

// held returns the streams that a decision may have counted. Its transaction requires that no
// running stream was put after the revision that it was made on. So a stream that was put
// later, and has ended since, may be missing in the decision, and those that ended after the
// last put of the running streams may be in it.
func (u userStreams) held() []*Stream {
	last := int64(0)
	for _, s := range u.now {
		last = max(last, s.revision)
	}
	all := slices.Clone(u.now)
	for _, s := range slices.Backward(u.gone) {
		if s.ended <= last {
			break
		}
		all = append(all, s)
	}
	return all
}

func (c *Checker) applyStream(user string, ch *change, e Change, revision int64) error {
	for _, s := range c.users[user].now {
		if s.Key == e.Key && !slices.Contains(ch.gone, s) {
			ch.gone = append(ch.gone, s)
		}
	}
	if !e.Put {
		return nil
	}
	if ch.put != nil {
		return fmt.Errorf("%s has two new streams in one revision: %v and %s", user, ch.put, e.Key)
	}
	s, err := decodeStream(e.Key, e.Value, revision)
	ch.put = s
	return err
}

func (c *Checker) applyRule(key string, e Change) error {
	if plan, ok := strings.CutPrefix(key, "plans/"); ok {
		delete(c.plans, plan)
		if e.Put {
			var p Plan
			if err := json.Unmarshal(e.Value, &p); err != nil {
				return fmt.Errorf("%s is no plan: %w", key, err)
			}
			c.plans[plan] = p
		}
	}
	if user, ok := strings.CutPrefix(key, "limits/"); ok {
		delete(c.overrides, user)
		if e.Put {
			var o override
			if err := json.Unmarshal(e.Value, &o); err != nil {
				return fmt.Errorf("%s is no override: %w", key, err)
			}
			c.overrides[user] = o
		}
	}
	return nil
}

// limits returns the plan of user for a start, and all limits in force. plan and limit are
// the claims of the start.
func (c *Checker) limits(user, plan string, limit *int) (Plan, []Limit) {
	own := c.overrides[user]
	p, found := c.plans[cmp.Or(own.Plan, plan, "default")]
	if !found {
		p, found = c.plans["default"]
	}
	if !found {
		p = c.fallback
	}
	p.Limits = slices.Clone(p.Limits)
	for i, l := range p.Limits {
		if number, ok := own.Limits[l.Name]; ok {
			p.Limits[i].Limit = number
		}
	}
	switch {
	case own.Limit != nil:
		return p, p.all(*own.Limit)
	case own.Plan == "" && limit != nil:
		return p, p.all(min(max(*limit, 0), 60))
	}
	return p, p.all(-1)
}

// A State is what a start without claims is decided on.
type State struct {
	Streams []*Stream // oldest first
	limits  []Limit
}

// State returns the current state of a user.
func (c *Checker) State(user string) State {
	_, limits := c.limits(user, "", nil)
	return State{c.users[user].now, limits}
}

// A Request is the part of a start that decides whether it is admitted.
type Request struct {
	Attributes
	Session  string
	Replaces []string // nonces
	Evict    bool
}

// MayRefuse reports whether a start in this state may be refused: a limit does not hold,
// and the start may not end streams until it does. It ignores leases that have expired,
// without which fewer starts are refused.
func (st State) MayRefuse(r Request) bool {
	newest := &Stream{Session: r.Session, Attributes: r.Attributes}
	remaining := []*Stream{newest}
	continues := false
	for _, s := range st.Streams {
		switch {
		case r.Session != "" && s.Session == r.Session && !continues:
			continues = true
		case s.Nonce != "" && slices.Contains(r.Replaces, s.Nonce):
		default:
			remaining = append(remaining, s)
		}
	}
	for _, l := range st.limits {
		bound := l.Limit
		if continues {
			bound = max(bound, l.number(st.Streams, newest))
		}
		if l.Observe || !l.matches(r.Attributes) || l.number(remaining, newest) <= bound {
			continue
		}
		if !r.Evict || bound == 0 || l.OnLimit != replaceOldest {
			return true
		}
	}
	return false
}
