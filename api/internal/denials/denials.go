// Package denials counts the calls that authentication or the caller's rights refuse, and
// selects those that are logged.
package denials

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/access"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/overload"
)

// A Reason is why a call was refused. It is a label of a metric.
type Reason string

// The reasons.
const (
	missing     Reason = "missing"     // no credential
	header      Reason = "header"      // no bearer token in the header, or more than one header
	key         Reason = "key"         // an unknown API key
	token       Reason = "token"       // an invalid token
	unavailable Reason = "unavailable" // a token that cannot be checked now
	forbidden   Reason = "forbidden"   // the credential does not permit the call
	otherUser   Reason = "foreign"     // a viewer's call about another user
)

var reasons = []Reason{missing, header, key, token, unavailable, forbidden, otherUser}

// OfCredential returns the reason for which a credential was refused with err.
func OfCredential(r *http.Request, err error) Reason {
	if errors.Is(err, access.ErrUnavailable) {
		return unavailable
	}
	headers := r.Header["Authorization"]
	if len(headers) != 1 {
		return header
	}
	scheme, credential, _ := strings.Cut(headers[0], " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer") || credential == "":
		return header
	case access.IsKey(credential):
		return key
	}
	return token
}

// OfDecision returns the reason for which a caller's rights refused a call.
func OfDecision(d access.Decision) Reason {
	switch d {
	case access.Unauthenticated:
		return missing
	case access.OtherUser:
		return otherUser
	}
	return forbidden
}

// A Counter counts refused calls, and selects those that are logged: one a minute for each
// network and reason, and [overload.MaxLinesPerSecond] in all.
type Counter struct {
	counts map[Reason]*atomic.Int64 // never changed
	lines  overload.LogSampler

	mu       sync.Mutex
	minute   time.Time           // when it began
	logged   map[string]struct{} // in it: networks and reasons
	unlogged int64               // since the last line
}

const maxLogged = 1024 // a minute

// NewCounter returns a Counter of no calls.
func NewCounter() *Counter {
	c := &Counter{counts: map[Reason]*atomic.Int64{}}
	for _, reason := range reasons {
		c.counts[reason] = new(atomic.Int64)
	}
	return c
}

// Counts returns the number of calls by reason.
func (c *Counter) Counts() map[string]int64 {
	out := make(map[string]int64, len(c.counts))
	for reason, n := range c.counts {
		out[string(reason)] = n.Load()
	}
	return out
}

// Add counts a call of client. It reports whether the call is to be logged, and how many calls
// were not since the last one that was.
func (c *Counter) Add(client netip.Addr, reason Reason, now time.Time) (unlogged int64, log bool) {
	c.counts[reason].Add(1)
	id := ingress.Network(client).String() + " " + string(reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.minute) >= time.Minute {
		c.minute, c.logged = now, map[string]struct{}{}
	}
	_, done := c.logged[id]
	log = !done && len(c.logged) < maxLogged
	if log {
		_, log = c.lines.Allow(now)
	}
	if !log {
		c.unlogged++
		return 0, false
	}
	c.logged[id] = struct{}{}
	unlogged, c.unlogged = c.unlogged, 0
	return unlogged, true
}
