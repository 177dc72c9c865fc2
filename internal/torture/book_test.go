package torture

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// event is one key's change.
type event struct {
	key   string
	value []byte
	lease int64
	put   bool
}

// A life is one stream as etcd has seen it.
type life struct {
	op      int // the start that made it, told by its content's title
	user    string
	key     string
	lease   int64
	nonce   string
	session string

	born, gone         int64 // revisions; gone is 0 while it lives
	bornSeen, goneSeen time.Duration
	reason             string // what its tombstone says in the revision of its end; "" for none
	by                 *life  // what was put for the same user in that revision
	count              int    // of the user's streams after it was born
}

func (l *life) String() string {
	s := fmt.Sprintf("stream %d of %s (%s, lease %x, session %q) from revision %d to %d, ", l.op, l.user, l.key, l.lease,
		l.session, l.born, l.gone)
	switch {
	case l.gone == 0:
		s += "alive"
	case l.reason != "":
		s += l.reason
	default:
		s += "silently"
	}
	if l.by != nil {
		s += fmt.Sprintf(" with stream %d", l.by.op)
	}
	return s
}

// nonceOf is the part of a stream id that stands in the stream's record too: bytes
// 11 to 22.
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

// book is the state of all users by etcd's own account. It holds each revision
// against the rules that need no clock.
type book struct {
	prefix   string
	fallback int // the limit where there is no other

	streams map[string]map[string]*life // user, key
	leases  map[int64]*life
	rules   map[string][]byte

	lives       []*life
	ruleChanges []ruleChange
	complaints  []string
	revisions   int
}

func newBook(prefix string, fallback int) *book {
	return &book{
		prefix: prefix, fallback: fallback, streams: map[string]map[string]*life{},
		leases: map[int64]*life{}, rules: map[string][]byte{},
	}
}

// turn begins a new page: what lives goes on, what is over is forgotten.
func (b *book) turn() {
	b.lives, b.complaints, b.ruleChanges, b.revisions = nil, nil, nil, 0
	for _, ls := range b.streams {
		for _, l := range ls {
			b.lives = append(b.lives, l)
		}
	}
}

func (b *book) complain(format string, args ...any) {
	if len(b.complaints) < 50 {
		b.complaints = append(b.complaints, fmt.Sprintf(format, args...))
	}
}

// enter takes one revision in and checks it.
func (b *book) enter(rev int64, seen time.Duration, events []event) {
	b.revisions++
	graves := b.graves(events)
	before := map[string]int{}
	put := map[string]*life{}
	var gone []*life
	for _, e := range events {
		rest := strings.TrimPrefix(e.key, b.prefix+"/")
		path, isStream := strings.CutPrefix(rest, "users/")
		if !isStream {
			b.rule(rest, e, rev, seen)
			continue
		}
		user, _, _ := strings.Cut(path, "/")
		if _, known := before[user]; !known {
			before[user] = len(b.streams[user])
		}
		if old := b.streams[user][e.key]; old != nil {
			gone = append(gone, old)
			b.drop(old, rev, seen, graves)
		}
		if e.put {
			if put[user] != nil {
				b.complain("revision %d: %s was admitted twice in one transaction: %v and %v", rev, user, put[user], e.key)
			}
			put[user] = b.admit(user, e, rev, seen)
		}
	}
	for _, l := range gone {
		l.by = put[l.user]
	}
	for user, l := range put {
		l.count = len(b.streams[user])
		b.checkLimit(rev, user, l, before[user], gone)
	}
}

// checkLimit is the promise: whenever a stream is admitted, the user's streams
// are no more than the limit in force. One that takes over the slot of its own
// session may go on under a limit that was lowered, but adds nothing.
func (b *book) checkLimit(rev int64, user string, l *life, before int, gone []*life) {
	limit := b.limit(user)
	goesOn := slices.ContainsFunc(gone, func(g *life) bool {
		return g.user == user && g.session != "" && g.session == l.session
	})
	if goesOn {
		limit = max(limit, before)
	}
	if l.count > limit {
		b.complain("revision %d: %s has %d streams, and the limit is %d: %v", rev, user, l.count, limit, l)
	}
	for _, other := range b.streams[user] {
		if other != l && l.session != "" && other.session == l.session {
			b.complain("revision %d: the session of %v counts twice: %v", rev, l, other)
		}
	}
}

func (b *book) drop(l *life, rev int64, seen time.Duration, graves map[string]string) {
	l.gone, l.goneSeen, l.reason = rev, seen, graves[l.nonce]
	delete(b.streams[l.user], l.key)
	if len(b.streams[l.user]) == 0 {
		delete(b.streams, l.user)
	}
	if b.leases[l.lease] == l {
		delete(b.leases, l.lease)
	}
}

func (b *book) admit(user string, e event, rev int64, seen time.Duration) *life {
	var r struct {
		N string
		S string
		C struct{ Title string }
	}
	if err := json.Unmarshal(e.value, &r); err != nil {
		b.complain("revision %d: %s is no stream: %v", rev, e.key, err)
	}
	n, err := strconv.Atoi(r.C.Title)
	if err != nil {
		b.complain("revision %d: %s has no title: %v", rev, e.key, err)
	}
	l := &life{
		op: n, user: user, key: e.key, lease: e.lease, nonce: r.N, session: r.S, born: rev, bornSeen: seen,
	}
	if other := b.leases[e.lease]; other != nil {
		b.complain("revision %d: two streams are under one lease: %v and %v", rev, other, l)
	}
	if e.lease == 0 {
		b.complain("revision %d: %v has no lease", rev, l)
	}
	if b.streams[user] == nil {
		b.streams[user] = map[string]*life{}
	}
	b.streams[user][e.key], b.leases[e.lease] = l, l
	b.lives = append(b.lives, l)
	return l
}

// graves are the reasons that a revision gives, by nonce.
func (b *book) graves(events []event) map[string]string {
	out := map[string]string{}
	for _, e := range events {
		if !e.put || !strings.HasPrefix(e.key, b.prefix+"/ended/") {
			continue
		}
		var list []struct{ N, R string }
		if err := json.Unmarshal(e.value, &list); err != nil {
			b.complain("%s is no tombstone: %v", e.key, err)
		}
		for _, g := range list {
			out[g.N] = g.R
		}
	}
	return out
}

func (b *book) rule(key string, e event, rev int64, seen time.Duration) {
	if !strings.HasPrefix(key, "limits/") && !strings.HasPrefix(key, "plans/") {
		return
	}
	delete(b.rules, key)
	if e.put {
		b.rules[key] = e.value
	}
	b.ruleChanges = append(b.ruleChanges, ruleChange{key, string(e.value), rev, seen})
}

// limit is what is in force for user: his own, that of his plan, the fallback.
func (b *book) limit(user string) int {
	var own struct {
		Limit *int
		Plan  string
	}
	var plan struct{ Limit *int }
	if v, ok := b.rules["limits/"+user]; ok {
		if err := json.Unmarshal(v, &own); err != nil {
			b.complain("the limit of %s cannot be read: %v", user, err)
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
