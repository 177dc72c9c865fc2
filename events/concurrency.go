package events

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"streamcount/lease"
)

const (
	maxTrackedUsers   = 1_000_000 // users whose maximum is counted, and as many who were rejected
	maxTrackedStreams = 255       // a larger number of streams is counted as this
	maxNamedLimits    = 200       // limits with a name that are counted separately; all others have the name otherLimits
	otherLimits       = "other"
)

// dailyConcurrency counts the maximum number of simultaneous streams per user of one
// day, and the users whose starts were rejected. Users are identified by 64-bit hashes;
// a million of them take 32 MB.
type dailyConcurrency struct {
	mu            sync.Mutex
	since         time.Time
	seed          maphash.Seed
	users         map[uint64]uint8           // maximum by user
	usersReaching [maxTrackedStreams + 1]int // users whose maximum is at least the index
	refusedUsers  map[userAtLimit]struct{}
	refusals      map[namedLimit]*RefusalsAtLimit
	partial       bool
}

type userAtLimit struct {
	user  uint64
	limit int16 // the index of the limit in the order in which limits were added
}

// A namedLimit is a limit of a plan with several limits, or the limit of any plan with one
// limit, which has no name.
type namedLimit struct {
	name  string
	limit int
}

// RefusalsAtLimit counts the starts that were rejected at a limit, and their users.
type RefusalsAtLimit struct {
	Name         string // of a limit of a plan with several limits; otherwise empty
	Limit, Users int
	Starts       int64

	index int16
}

// Concurrency is the distribution of the maximum number of simultaneous streams per
// user.
type Concurrency struct {
	Since         time.Time
	UsersReaching []int // number of users with at least 1, 2, ... simultaneous streams
	Refused       []RefusalsAtLimit
	Partial       bool // there were more users than are counted
}

func (p *dailyConcurrency) reset(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.partial = since, false
	p.seed = maphash.MakeSeed()
	p.users, p.usersReaching = make(map[uint64]uint8), [maxTrackedStreams + 1]int{}
	p.refusedUsers, p.refusals = make(map[userAtLimit]struct{}), make(map[namedLimit]*RefusalsAtLimit)
}

// observe records that user has n streams.
func (p *dailyConcurrency) observe(user string, n int) {
	n = min(n, maxTrackedStreams)
	p.mu.Lock()
	defer p.mu.Unlock()
	h := maphash.String(p.seed, user)
	old, known := p.users[h]
	if int(old) >= n {
		return
	}
	if !known && len(p.users) >= maxTrackedUsers {
		p.partial = true
		return
	}
	p.users[h] = uint8(n)
	for i := int(old) + 1; i <= n; i++ {
		p.usersReaching[i]++
	}
}

// observeRejection records that a start of user was rejected, for each limit that rejected it.
func (p *dailyConcurrency) observeRejection(user string, err *lease.LimitError) {
	if len(err.Limits) == 0 {
		p.observeRefusal(user, namedLimit{"", err.Limit})
	}
	for _, l := range err.Limits {
		p.observeRefusal(user, namedLimit{l.Name, l.Limit})
	}
}

// observeRefusal records that a start of user was rejected at a limit.
func (p *dailyConcurrency) observeRefusal(user string, at namedLimit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.refusals[at]
	if r == nil && at.name != "" && len(p.refusals) >= maxNamedLimits {
		at.name = otherLimits
		r = p.refusals[at]
	}
	if r == nil {
		r = &RefusalsAtLimit{Name: at.name, Limit: at.limit, index: int16(len(p.refusals))}
		p.refusals[at] = r
	}
	r.Starts++
	key := userAtLimit{maphash.String(p.seed, user), r.index}
	if _, known := p.refusedUsers[key]; known {
		return
	}
	if len(p.refusedUsers) >= maxTrackedUsers {
		p.partial = true
		return
	}
	p.refusedUsers[key] = struct{}{}
	r.Users++
}

func (p *dailyConcurrency) snapshot() Concurrency {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := Concurrency{Since: p.since, Partial: p.partial}
	for n := 1; n <= maxTrackedStreams && p.usersReaching[n] > 0; n++ {
		c.UsersReaching = append(c.UsersReaching, p.usersReaching[n])
	}
	for _, r := range p.refusals {
		c.Refused = append(c.Refused, *r)
	}
	slices.SortFunc(c.Refused, func(a, b RefusalsAtLimit) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Limit, b.Limit))
	})
	return c
}

// Concurrency returns the distribution since the start of the day in UTC, which
// [Feed.RollDay] determines, or since the node started if that is later.
func (f *Feed) Concurrency() Concurrency { return f.daily.snapshot() }

// RollDay resets the distribution to the present streams if a new day has begun in
// UTC. Call it every few seconds.
func (f *Feed) RollDay(now time.Time) {
	midnight := now.UTC().Truncate(24 * time.Hour)
	f.daily.mu.Lock()
	since := f.daily.since
	f.daily.mu.Unlock()
	if !since.Before(midnight) {
		return
	}
	f.daily.reset(midnight)
	for _, p := range f.allPublishers() {
		p.limiter.EachStreamCount(f.daily.observe)
	}
}
