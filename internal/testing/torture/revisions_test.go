//go:build linux

package torture

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"streamcount/internal/testing/limitcheck"
)

// event is the change of one key.
type event struct {
	key   string
	value []byte
	lease int64
	put   bool
}

// An observedStream is a stream in the history of etcd.
type observedStream struct {
	op      int // number of its start, from the title of its content
	user    string
	key     string
	lease   int64
	nonce   string
	session string

	created, ended         int64 // revisions; ended is 0 while it exists
	createdSeen, endedSeen time.Duration
	reason                 string          // from its tombstone in the revision of its end; "" for none
	by                     *observedStream // the stream that was put for the same user in that revision
	count                  int             // number of the user's streams after its start
}

func (l *observedStream) String() string {
	s := fmt.Sprintf("stream %d of %s (%s, lease %x, session %q) from revision %d to %d, ", l.op, l.user, l.key, l.lease,
		l.session, l.created, l.ended)
	switch {
	case l.ended == 0:
		s += "alive"
	case l.reason != "":
		s += l.reason
	default:
		s += "no tombstone"
	}
	if l.by != nil {
		s += fmt.Sprintf(" with stream %d", l.by.op)
	}
	return s
}

// nonceOf is the part of a stream id that is also in the stream's record: bytes 11 to 22.
func nonceOf(id string) string {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) < 23 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b[11:23])
}

// A ruleChange is one put or delete of a limit or plan.
type ruleChange struct {
	key   string
	value string // "" if it was deleted
	rev   int64
	seen  time.Duration
}

// revisionChecker has the state of all users as of a revision. It checks each revision
// against the rules that need no clock.
type revisionChecker struct {
	prefix   string
	fallback int // the limit of users without another

	byUser map[string]map[string]*observedStream // user, key
	leases map[int64]*observedStream
	rules  map[string][]byte
	limits *limitcheck.Checker
	states map[string][]severalState // by user with several limits

	streams     []*observedStream
	ruleChanges []ruleChange
	violations  []string
	revisions   int
}

func newRevisionChecker(prefix string, fallback int) *revisionChecker {
	return &revisionChecker{
		prefix: prefix, fallback: fallback, byUser: map[string]map[string]*observedStream{},
		leases: map[int64]*observedStream{}, rules: map[string][]byte{},
		limits: limitcheck.New(prefix, limitcheck.Plan{Limit: fallback, OnLimit: "replace-oldest"}),
		states: map[string][]severalState{},
	}
}

// startRound drops the streams that have ended, and the findings.
func (b *revisionChecker) startRound() {
	b.streams, b.violations, b.ruleChanges, b.revisions = nil, nil, nil, 0
	b.states = map[string][]severalState{} // each round has other users
	for _, ls := range b.byUser {
		for _, l := range ls {
			b.streams = append(b.streams, l)
		}
	}
}

func (b *revisionChecker) errorf(format string, args ...any) {
	if len(b.violations) < 50 {
		b.violations = append(b.violations, fmt.Sprintf(format, args...))
	}
}

// apply applies one revision and checks it.
func (b *revisionChecker) apply(rev int64, seen time.Duration, events []event) {
	b.revisions++
	reasons := b.endReasons(events)
	before := map[string]int{}
	put := map[string]*observedStream{}
	var gone []*observedStream
	for _, e := range events {
		rest := strings.TrimPrefix(e.key, b.prefix+"/")
		path, isStream := strings.CutPrefix(rest, "users/")
		if !isStream {
			b.rule(rest, e, rev, seen)
			continue
		}
		user, _, _ := strings.Cut(path, "/")
		if _, known := before[user]; !known {
			before[user] = len(b.byUser[user])
		}
		if old := b.byUser[user][e.key]; old != nil {
			gone = append(gone, old)
			b.drop(old, rev, seen, reasons)
		}
		if e.put {
			if put[user] != nil {
				b.errorf("revision %d: %s was admitted twice in one transaction: %v and %v", rev, user, put[user], e.key)
			}
			put[user] = b.admit(user, e, rev, seen)
		}
	}
	for _, l := range gone {
		l.by = put[l.user]
	}
	for user, l := range put {
		l.count = len(b.byUser[user])
		b.checkLimit(rev, user, l, before[user], gone)
	}
	b.applySeveral(rev, seen, events)
}

// checkLimit checks the main promise: when a stream is admitted, the user has no more
// streams than the limit in force. A stream that takes over the slot of its session may
// exceed a limit that was lowered, but adds none.
func (b *revisionChecker) checkLimit(rev int64, user string, l *observedStream, before int, gone []*observedStream) {
	limit := b.limit(user)
	takeover := slices.ContainsFunc(gone, func(g *observedStream) bool {
		return g.user == user && g.session != "" && g.session == l.session
	})
	if takeover {
		limit = max(limit, before)
	}
	if l.count > limit && !hasSeveral(user) {
		b.errorf("revision %d: %s has %d streams, and the limit is %d: %v", rev, user, l.count, limit, l)
	}
	for _, other := range b.byUser[user] {
		if other != l && l.session != "" && other.session == l.session {
			b.errorf("revision %d: the session of %v counts twice: %v", rev, l, other)
		}
	}
}

func (b *revisionChecker) drop(l *observedStream, rev int64, seen time.Duration, reasons map[string]string) {
	l.ended, l.endedSeen, l.reason = rev, seen, reasons[l.nonce]
	delete(b.byUser[l.user], l.key)
	if len(b.byUser[l.user]) == 0 {
		delete(b.byUser, l.user)
	}
	if b.leases[l.lease] == l {
		delete(b.leases, l.lease)
	}
}

func (b *revisionChecker) admit(user string, e event, rev int64, seen time.Duration) *observedStream {
	var r struct {
		N string
		S string
		C struct{ Title string }
	}
	if err := json.Unmarshal(e.value, &r); err != nil {
		b.errorf("revision %d: %s is no stream: %v", rev, e.key, err)
	}
	n, err := strconv.Atoi(r.C.Title)
	if err != nil {
		b.errorf("revision %d: %s has no title: %v", rev, e.key, err)
	}
	l := &observedStream{
		op: n, user: user, key: e.key, lease: e.lease, nonce: r.N, session: r.S, created: rev, createdSeen: seen,
	}
	if other := b.leases[e.lease]; other != nil {
		b.errorf("revision %d: two streams are under one lease: %v and %v", rev, other, l)
	}
	if e.lease == 0 {
		b.errorf("revision %d: %v has no lease", rev, l)
	}
	if b.byUser[user] == nil {
		b.byUser[user] = map[string]*observedStream{}
	}
	b.byUser[user][e.key], b.leases[e.lease] = l, l
	b.streams = append(b.streams, l)
	return l
}

// endReasons returns the reasons in the tombstones of a revision, by nonce.
func (b *revisionChecker) endReasons(events []event) map[string]string {
	out := map[string]string{}
	for _, e := range events {
		if !e.put || !strings.HasPrefix(e.key, b.prefix+"/ended/") {
			continue
		}
		var list []struct{ N, R string }
		if err := json.Unmarshal(e.value, &list); err != nil {
			b.errorf("%s is no tombstone: %v", e.key, err)
		}
		for _, g := range list {
			out[g.N] = g.R
		}
	}
	return out
}

func (b *revisionChecker) rule(key string, e event, rev int64, seen time.Duration) {
	if !strings.HasPrefix(key, "limits/") && !strings.HasPrefix(key, "plans/") {
		return
	}
	delete(b.rules, key)
	if e.put {
		b.rules[key] = e.value
	}
	b.ruleChanges = append(b.ruleChanges, ruleChange{key, string(e.value), rev, seen})
}

// limit is the limit in force for user: their own, that of their plan, or the fallback.
func (b *revisionChecker) limit(user string) int {
	var own struct {
		Limit *int
		Plan  string
	}
	var plan struct{ Limit *int }
	if v, ok := b.rules["limits/"+user]; ok {
		if err := json.Unmarshal(v, &own); err != nil {
			b.errorf("the limit of %s cannot be read: %v", user, err)
		}
	}
	if own.Limit != nil {
		return *own.Limit
	}
	for _, name := range []string{own.Plan, "default"} {
		if v, ok := b.rules["plans/"+name]; ok && json.Unmarshal(v, &plan) == nil && plan.Limit != nil {
			return *plan.Limit
		}
	}
	return b.fallback
}
