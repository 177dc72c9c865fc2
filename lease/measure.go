package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Measures is what a [Limiter] has counted since it was made, and how it is now.
// Maps have every key from the beginning, with 0.
type Measures struct {
	// By outcome: Starts as in StartOutcomes, Heartbeats as in BeatOutcomes, Stops
	// (by id, the quietest, all) as in StopOutcomes, Renewals as in RenewOutcomes.
	Starts, Heartbeats, Stops, Renewals map[string]int64
	LateRenewals                        int64 // sent on a stream of their own
	Expired                             int64 // streams of any node seen to expire; it never falls

	Streams, UsersAtLimit int
	Users                 map[int]int // by how many streams they have; the last is MaxLimit+1 or more
	Regions               map[string]int
	ViewAge               time.Duration // since the last sign of life, or since the Limiter was made
	ViewCurrent           bool
	Revision              int64

	LeasesReady, LeasesSpent int              // spent ones are to be revoked
	Leases                   map[string]int64 // how they came and went, as in LeaseMoves

	BatchSize, BatchWait Distribution // writes of a batch; seconds that a write waited for its own
	WritesWaiting        int64
	Calls                map[string]Distribution // seconds until etcd answered, as in EtcdCalls
	CallsFailed          map[string]int64
	LeaderChanges        int64
	EtcdFull             bool // it took no more puts lately

	CircuitOpen   bool
	CircuitOpened int64
	Provisional   int              // streams that etcd has yet to be told of
	Settled       map[string]int64 // what became of others, as in Settlements
	Cleaning      int              // leases and stops that the background has yet to finish
}

// The keys of the maps in [Measures].
var (
	StartOutcomes = []string{
		"admitted", "took-over", "evicted", "provisional", "refused", "unavailable", "abandoned", "invalid",
	}
	BeatOutcomes  = []string{"alive", "degraded", "ended", "invalid"}
	StopOutcomes  = []string{"stopped", "gone", "unavailable", "invalid"}
	RenewOutcomes = []string{"coalesced", "renewed", "gone", "failed", "stalled"}
	LeaseMoves    = []string{"granted", "retired", "reserved", "handed-on", "revoked", "forgotten"}
	EtcdCalls     = []string{"read", "write", "grant", "revoke", "time-to-live", "renew"}
	Settlements   = []string{"written", "ended", "silent"}
)

// The places of the keys.
const (
	startAdmitted = iota
	startTookOver
	startEvicted
	startProvisional
	startRefused
	startUnavailable
	startAbandoned
	startInvalid
)

const (
	beatAlive = iota
	beatDegraded
	beatEnded
	beatInvalid
)

const (
	stopDone = iota
	stopGone
	stopUnavailable
	stopInvalid
)

const (
	renewCoalesced = iota
	renewDone
	renewGone
	renewFailed
	renewWasStalled
)

const (
	callRead = iota
	callWrite
	callGrant
	callRevoke
	callTimeToLive
	callRenew
)

const (
	settledWritten = iota
	settledEnded
	settledSilent
)

// counts are counters in the order of the names that go with them.
type counts [8]atomic.Int64

func (c *counts) named(names []string) map[string]int64 {
	out := make(map[string]int64, len(names))
	for i, name := range names {
		out[name] = c[i].Load()
	}
	return out
}

// measures are a Limiter's counters. All of it is atomics: they stand in the way of
// every call.
type measures struct {
	since                          time.Time
	starts, beats, stops           counts
	renewals, callsFailed, settled counts
	late, leaderChanges            atomic.Int64
	batchSize, batchWait           histogram
	calls                          [callRenew + 1]histogram
	term                           atomic.Uint64 // the last that etcd answered in
	expired                        atomic.Int64  // as shown last
	tracer                         trace.Tracer  // nil if nothing is traced
	mostStreams                    atomic.Int64  // that any user was seen to have
}

func newMeasures() *measures {
	m := &measures{since: time.Now(), batchSize: newHistogram(sizeBounds, 1), batchWait: newHistogram(timeBounds, 1e9)}
	for i := range m.calls {
		m.calls[i] = newHistogram(timeBounds, 1e9)
	}
	return m
}

// started counts the outcome of a start. One that was sent to the wrong shard is
// none: it is tried elsewhere.
func (m *measures) started(ctx context.Context, st *Started, err error) {
	i := startAbandoned
	switch {
	case err == nil:
		i = startKind(st)
	case errors.Is(ctx.Err(), context.Canceled):
	case errors.Is(err, ErrRouting):
		return
	case isLimit(err):
		i = startRefused
	case errors.Is(err, ErrUnavailable):
		i = startUnavailable
	case errors.Is(err, ErrBadUser), errors.Is(err, ErrBadID), errors.Is(err, ErrForeignID), errors.Is(err, ErrNoPlan):
		i = startInvalid
	}
	m.starts[i].Add(1)
}

// startKind tells admitted starts apart by what they ended.
func startKind(st *Started) int {
	if st.Stream.Degraded {
		return startProvisional
	}
	i := startAdmitted
	for _, e := range st.Ended {
		if e.Reason == ReasonEvicted {
			return startEvicted
		}
		i = startTookOver
	}
	return i
}

// beat counts the outcome of a heartbeat that did not rest.
func (m *measures) beat(s *Stream, err error) {
	i := beatAlive
	switch {
	case errors.Is(err, ErrEnded):
		i = beatEnded
	case err != nil:
		i = beatInvalid
	case s.Degraded:
		i = beatDegraded
	}
	m.beats[i].Add(1)
}

// renewed counts the outcome of a renewal.
func (m *measures) renewed(r renewal) {
	i := renewFailed
	switch {
	case r.err == nil:
		i = renewDone
	case errors.Is(r.err, errLeaseGone):
		i = renewGone
	case errors.Is(r.err, errRenewStalled):
		i = renewWasStalled
	}
	m.renewals[i].Add(1)
}

// stopped counts the outcome of a stop or a removal.
func (m *measures) stopped(err error) {
	i := stopInvalid
	switch {
	case err == nil:
		i = stopDone
	case errors.Is(err, ErrEnded), errors.Is(err, ErrNoStreams):
		i = stopGone
	case errors.Is(err, ErrUnavailable):
		i = stopUnavailable
	case errors.Is(err, ErrRouting):
		return
	}
	m.stops[i].Add(1)
}

// called notes a call to etcd that began then, and the term it was answered in.
func (m *measures) called(call int, began time.Time, term uint64, err error) {
	m.calls[call].add(int64(time.Since(began)))
	if err != nil {
		m.callsFailed[call].Add(1)
		return
	}
	if last := m.term.Load(); term > last && m.term.CompareAndSwap(last, term) && last != 0 {
		m.leaderChanges.Add(1)
	}
}

// Measures returns what was counted, for those who watch the node.
func (l *Limiter) Measures() *Measures {
	m := l.m
	out := &Measures{
		Starts: m.starts.named(StartOutcomes), Heartbeats: m.beats.named(BeatOutcomes),
		Stops: m.stops.named(StopOutcomes), Renewals: m.renewals.named(RenewOutcomes), LateRenewals: m.late.Load(),
		BatchSize: m.batchSize.read(), BatchWait: m.batchWait.read(), WritesWaiting: l.batch.waiting.Load(),
		Calls: make(map[string]Distribution, len(EtcdCalls)), CallsFailed: m.callsFailed.named(EtcdCalls),
		LeaderChanges: m.leaderChanges.Load(), EtcdFull: l.graves.avoided(),
		CircuitOpen: l.circuit.open.Load(), CircuitOpened: l.circuit.opened.Load(),
		Provisional: l.pending.size(), Settled: m.settled.named(Settlements), Cleaning: len(l.cleaner.queue),
		Expired: l.shownExpired(),
	}
	out.Heartbeats["alive"] += out.Renewals["coalesced"] // those that rest are counted once
	for i, name := range EtcdCalls {
		out.Calls[name] = m.calls[i].read()
	}
	l.measureView(out)
	out.LeasesReady, out.LeasesSpent = l.pool.book.sizes()
	c := l.pool.book.stats()
	out.Leases = map[string]int64{
		"granted": c.granted, "retired": c.retired, "reserved": c.reserved, "handed-on": c.handedOn,
		"revoked": c.revoked, "forgotten": c.forgotten,
	}
	return out
}

// shownExpired is how many streams were seen to expire, but never less than was
// shown before: the view takes some back, and a counter that falls is taken for one
// that began anew.
func (l *Limiter) shownExpired() int64 {
	for {
		last, now := l.m.expired.Load(), l.view.expiries()
		if now <= last {
			return last
		}
		if l.m.expired.CompareAndSwap(last, now) {
			return now
		}
	}
}

// fullSpan is how old the number of users at a limit of their own may be: to count
// them is to look at every user.
const fullSpan = 30 * time.Second

func (l *Limiter) measureView(out *Measures) {
	usual := l.ruleOf("", nil)
	t, told := l.view.totals(usual.limit)
	if told || !usual.count.each() || !l.view.rules.empty() {
		t.UsersAtLimit = l.full.within(fullSpan, l.countFull)
	}
	out.Streams, out.UsersAtLimit, out.Revision = t.Streams, t.UsersAtLimit, t.Revision
	out.Users, out.Regions = l.view.tally.spread()
	out.Regions[l.cfg.Region] += 0
	most := max(l.m.mostStreams.Load(), int64(usual.limit))
	for n := range out.Users {
		most = max(most, int64(n))
	}
	l.m.mostStreams.Store(most)
	for n := range int(most) { // a number that comes and goes stays, with 0
		out.Users[n+1] += 0
	}
	since := l.m.since
	if heard := instant(l.view.heard.Load()); heard != 0 {
		since = heard.time()
	}
	out.ViewAge, out.ViewCurrent = time.Since(since), l.view.current()
}

// spread is how many users have how many streams, and how many streams are in each
// region that ever had one.
func (t *tally) spread() (users map[int]int, regions map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	users, regions = make(map[int]int, len(t.byCount)), make(map[string]int, len(t.regions))
	for n, many := range t.byCount {
		users[min(n, MaxLimit+1)] += many
	}
	for i, n := range t.regions {
		regions[t.names[i]] += n
	}
	return users, regions
}
