package lease

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

const (
	maxPeaks  = 1_000_000 // users whose peak is remembered, and as many who were refused
	topStreak = 255       // streams at once; more are counted as that many
)

// peaks is how many streams each user had at once today, and who was refused. Users
// are known by hashes of 64 bits; a million of them take 32 MB.
type peaks struct {
	mu        sync.Mutex
	since     time.Time
	seed      maphash.Seed
	users     map[uint64]uint8
	reached   [topStreak + 1]int // users who had so many, or more
	atLimit   map[refusedAt]struct{}
	refusedBy map[int]*RefusedAt
	partial   bool
}

type refusedAt struct {
	user  uint64
	limit int16
}

// RefusedAt is how many users were refused at a limit, and how often.
type RefusedAt struct {
	Limit, Users int
	Starts       int64
}

// Concurrency is how many streams users have had at once.
type Concurrency struct {
	Since   time.Time
	Reached []int // how many users had one or more, two or more, ...
	Refused []RefusedAt
	Partial bool // there were more users than are remembered
}

func (p *peaks) reset(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.partial = since, false
	p.seed = maphash.MakeSeed()
	p.users, p.reached = make(map[uint64]uint8), [topStreak + 1]int{}
	p.atLimit, p.refusedBy = make(map[refusedAt]struct{}), make(map[int]*RefusedAt)
}

// saw notes that user has n streams.
func (p *peaks) saw(user string, n int) {
	n = min(n, topStreak)
	p.mu.Lock()
	defer p.mu.Unlock()
	h := maphash.String(p.seed, user)
	old, known := p.users[h]
	if int(old) >= n {
		return
	}
	if !known && len(p.users) >= maxPeaks {
		p.partial = true
		return
	}
	p.users[h] = uint8(n)
	for i := int(old) + 1; i <= n; i++ {
		p.reached[i]++
	}
}

// refused notes that a start of user was refused at a limit.
func (p *peaks) refused(user string, limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.refusedBy[limit]
	if r == nil {
		r = &RefusedAt{Limit: limit}
		p.refusedBy[limit] = r
	}
	r.Starts++
	key := refusedAt{maphash.String(p.seed, user), int16(limit)}
	if _, known := p.atLimit[key]; known {
		return
	}
	if len(p.atLimit) >= maxPeaks {
		p.partial = true
		return
	}
	p.atLimit[key] = struct{}{}
	r.Users++
}

func (p *peaks) read() Concurrency {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := Concurrency{Since: p.since, Partial: p.partial}
	for n := 1; n <= topStreak && p.reached[n] > 0; n++ {
		c.Reached = append(c.Reached, p.reached[n])
	}
	for _, r := range p.refusedBy {
		c.Refused = append(c.Refused, *r)
	}
	slices.SortFunc(c.Refused, func(a, b RefusedAt) int { return a.Limit - b.Limit })
	return c
}

// Concurrency returns how many streams users have had at once since the day began
// in UTC, as far as [Feed.Turn] was told of it, or since the node started.
func (f *Feed) Concurrency() Concurrency { return f.peaks.read() }

// Turn begins to count anew if now is on another day, with the streams that run. It
// is to be called every few seconds.
func (f *Feed) Turn(now time.Time) {
	midnight := now.UTC().Truncate(24 * time.Hour)
	f.peaks.mu.Lock()
	since := f.peaks.since
	f.peaks.mu.Unlock()
	if !since.Before(midnight) {
		return
	}
	f.peaks.reset(midnight)
	f.mu.Lock()
	var views []*view
	for _, s := range f.tellers {
		views = append(views, s.limiter.view)
	}
	f.mu.Unlock()
	for _, v := range views {
		v.counts(f.peaks.saw)
	}
}
