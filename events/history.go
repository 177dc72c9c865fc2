package events

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"streamcount/lease"
)

const (
	historyTick = time.Second
	sampleTicks = 10  // ticks per sample
	maxSamples  = 360 // an hour
	rateTicks   = 10  // ticks over which a rate is computed
	maxRegions  = 50  // in a sample
	otherRegion = "other"
)

// SampleInterval is the interval between the samples of a [History].
const SampleInterval = sampleTicks * historyTick

// A History holds samples of the last hour, and the rates of the last seconds. The zero
// History is empty.
type History struct {
	mu      sync.Mutex
	samples []Sample
	last    Activity        // as of the last sample
	points  []activityPoint // the last rateTicks and one more
}

// A Sample is the totals at a time, and the activity since the previous sample.
type Sample struct {
	At                           time.Time
	Streams, Users, UsersAtLimit int
	Regions                      map[string]int // streams by region
	Activity                     Activity
}

// Rates are numbers per second.
type Rates struct {
	Starts, Stops, Expiries, Refusals, Heartbeats float64
}

// An activityPoint is the counts at a time.
type activityPoint struct {
	at         time.Time
	activity   Activity
	heartbeats int64
}

// A HistorySource is what a [History] samples.
type HistorySource interface {
	// Feed returns the feed; nil if there is none yet.
	Feed() *Feed
	// Totals returns the present totals.
	Totals(context.Context) (lease.Totals, error)
	// Heartbeats returns the number of heartbeats since the node started.
	Heartbeats() int64
}

// Run samples source until ctx ends. It also rolls the day of the feed.
func (h *History) Run(ctx context.Context, source HistorySource) {
	tick := time.NewTicker(historyTick)
	defer tick.Stop()
	for due := 0; ; due-- {
		if feed := source.Feed(); feed != nil {
			now := time.Now()
			feed.RollDay(now)
			if h.Record(ctx, source, now, due <= 0) {
				due = sampleTicks
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Record records the present activity, and with sample also a sample. It reports
// whether it recorded a sample: it cannot while the totals are not known.
func (h *History) Record(ctx context.Context, source HistorySource, now time.Time, sample bool) bool {
	feed := source.Feed()
	h.addPoint(now, feed.Activity(), source.Heartbeats())
	if !sample {
		return false
	}
	t, err := source.Totals(ctx)
	if err != nil {
		return false
	}
	h.add(Sample{
		At: now, Streams: t.Streams, Users: t.Users, UsersAtLimit: t.UsersAtLimit, Regions: topRegions(t.ByRegion),
	}, feed.Activity())
	return true
}

// topRegions returns the regions with the most streams. It adds up the others.
func topRegions(all map[string]int) map[string]int {
	out := maps.Clone(all)
	if out == nil {
		out = map[string]int{}
	}
	if len(out) <= maxRegions {
		return out
	}
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b))
	})
	rest := 0
	for _, name := range names[maxRegions-1:] {
		rest += out[name]
		delete(out, name)
	}
	out[otherRegion] += rest
	return out
}

// add adds a sample, whose activity is that between the last sample and now.
func (h *History) add(sample Sample, now Activity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sample.Activity = now.minus(h.last)
	h.last = now
	if len(h.samples) == maxSamples {
		h.samples = slices.Delete(h.samples, 0, 1)
	}
	h.samples = append(h.samples, sample)
}

// minus returns the activity between b and a.
func (a Activity) minus(b Activity) Activity {
	return Activity{
		Starts: a.Starts - b.Starts, Stops: a.Stops - b.Stops, Expiries: a.Expiries - b.Expiries,
		Admitted: a.Admitted - b.Admitted, Refused: a.Refused - b.Refused,
	}
}

func (h *History) addPoint(at time.Time, a Activity, heartbeats int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.points) > rateTicks {
		h.points = slices.Delete(h.points, 0, 1)
	}
	h.points = append(h.points, activityPoint{at, a, heartbeats})
}

// Rates returns the rates of the last seconds.
func (h *History) Rates() Rates {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.points) < 2 {
		return Rates{}
	}
	from, to := h.points[0], h.points[len(h.points)-1]
	perSecond := func(n int64) float64 { return float64(n) / to.at.Sub(from.at).Seconds() }
	a := to.activity.minus(from.activity)
	return Rates{
		Starts: perSecond(a.Starts), Stops: perSecond(a.Stops), Expiries: perSecond(a.Expiries),
		Refusals: perSecond(a.Refused), Heartbeats: perSecond(to.heartbeats - from.heartbeats),
	}
}

// Samples returns the samples, oldest first.
func (h *History) Samples() []Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.samples)
}
