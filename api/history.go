package api

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"streamcount/api/apitype"
	"streamcount/lease"
)

const (
	tickEvery   = time.Second
	sampleTicks = 10  // ticks a sample
	maxSamples  = 360 // an hour
	rateTicks   = 10  // ticks that a rate is taken over
	maxRegions  = 50  // in a sample
	otherRegion = "other"
)

// history is what a node notes of the totals and of what it has counted.
type history struct {
	mu      sync.Mutex
	samples []apitype.Sample
	last    lease.Activity // as of the last sample
	ticks   []tick         // the last rateTicks and one more
}

// A tick is what was counted until then.
type tick struct {
	at    time.Time
	done  lease.Activity
	beats int64
}

// notes samples what the node does until ctx ends.
func (s *Server) notes(ctx context.Context) {
	every := time.NewTicker(tickEvery)
	defer every.Stop()
	for due := 0; ; due-- {
		if feed := s.backend.Load().Feed; feed != nil {
			now := time.Now()
			s.history.tick(tick{now, feed.Activity(), s.beats.Load()})
			feed.Turn(now)
			if due <= 0 && s.sample(ctx, feed, now) {
				due = sampleTicks
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// sample notes the totals. Where they are not known it notes nothing and reports
// false, and the next sample has what happened meanwhile.
func (s *Server) sample(ctx context.Context, feed *lease.Feed, now time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	l := s.limiter()
	if l == nil {
		return false
	}
	t, err := l.Totals(ctx)
	if err != nil {
		return false
	}
	s.history.add(apitype.Sample{
		At: apitype.At(now), Streams: t.Streams, Users: t.Users, UsersAtLimit: t.UsersAtLimit,
		Regions: fewRegions(t.ByRegion),
	}, feed.Activity())
	return true
}

// fewRegions adds up the regions with the fewest streams.
func fewRegions(all map[string]int) map[string]int {
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

func (h *history) add(sample apitype.Sample, now lease.Activity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sample.Starts, sample.Stops = now.Starts-h.last.Starts, now.Stops-h.last.Stops
	sample.Expiries, sample.Refusals = now.Expiries-h.last.Expiries, now.Refused-h.last.Refused
	h.last = now
	if len(h.samples) == maxSamples {
		h.samples = slices.Delete(h.samples, 0, 1)
	}
	h.samples = append(h.samples, sample)
}

func (h *history) tick(t tick) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ticks) > rateTicks {
		h.ticks = slices.Delete(h.ticks, 0, 1)
	}
	h.ticks = append(h.ticks, t)
}

// rates are those over the last ticks.
func (h *history) rates() apitype.Rates {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ticks) < 2 {
		return apitype.Rates{}
	}
	from, to := h.ticks[0], h.ticks[len(h.ticks)-1]
	a := func(before, after int64) float64 {
		return float64(after-before) / to.at.Sub(from.at).Seconds()
	}
	return apitype.Rates{
		Starts: a(from.done.Starts, to.done.Starts), Stops: a(from.done.Stops, to.done.Stops),
		Expiries: a(from.done.Expiries, to.done.Expiries), Refusals: a(from.done.Refused, to.done.Refused),
		Heartbeats: a(from.beats, to.beats),
	}
}

func (h *history) read() apitype.History {
	h.mu.Lock()
	defer h.mu.Unlock()
	return apitype.History{
		EverySeconds: int(sampleTicks * tickEvery / time.Second),
		Samples:      append([]apitype.Sample{}, h.samples...),
	}
}
