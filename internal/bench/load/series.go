package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	longest = time.Hour // longer latencies are recorded as this
	figures = 3         // significant ones of every latency
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, longest.Microseconds(), figures)
}

// A Series collects the latencies of one kind of call: all of them in one
// histogram, and their course over time. It is safe for concurrent use.
type Series struct {
	begin time.Time
	step  time.Duration

	mu     sync.Mutex
	all    *hdrhistogram.Histogram
	now    *hdrhistogram.Histogram // of the step that has not ended
	at     int64                   // its number
	points []Point
	first  time.Time // when the earliest call was due
	last   time.Time // when the latest was answered
}

// A Point sums up one step of time.
type Point struct {
	At    time.Duration // its end, since the beginning
	Count int64
	P50   time.Duration
	P99   time.Duration
	Max   time.Duration
}

// NewSeries starts a series with one point for each step of time.
func NewSeries(begin time.Time, step time.Duration) *Series {
	return &Series{begin: begin, step: step, all: newHistogram(), now: newHistogram()}
}

// Add records that a call which stands for n was answered at done after
// latency.
func (s *Series) Add(done time.Time, latency time.Duration, n int64) {
	us := min(max(latency.Microseconds(), 1), longest.Microseconds())
	at := int64(done.Sub(s.begin) / s.step)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at > s.at {
		s.flush(at)
	}
	if due := done.Add(-latency); s.first.IsZero() || due.Before(s.first) {
		s.first = due
	}
	if done.After(s.last) {
		s.last = done
	}
	// They fail only out of range, which us is not.
	_ = s.all.RecordValues(us, n)
	_ = s.now.RecordValues(us, n)
}

// flush ends the current step, and those without any call up to step at.
func (s *Series) flush(at int64) {
	for ; s.at < at; s.at++ {
		p := Point{At: time.Duration(s.at+1) * s.step, Count: s.now.TotalCount()}
		if p.Count > 0 {
			p.P50, p.P99, p.Max = quantile(s.now, 50), quantile(s.now, 99), quantile(s.now, 100)
			s.now.Reset()
		}
		s.points = append(s.points, p)
	}
}

// A Summary is what a Series came to.
type Summary struct {
	Count int64
	Took  time.Duration // from when the first was due to the last answer
	Hist  *hdrhistogram.Histogram
	// Points leave the last, unfinished step out, unless it is the only one.
	Points []Point
	Step   time.Duration
}

// Summary sums up what was recorded so far.
func (s *Series) Summary() Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Summary{
		Count: s.all.TotalCount(), Took: s.last.Sub(s.first), Hist: s.all.Clone(),
		Points: append([]Point(nil), s.points...), Step: s.step,
	}
	if len(out.Points) == 0 && out.Count > 0 {
		out.Points = []Point{{
			At: s.step, Count: out.Count,
			P50: quantile(s.all, 50), P99: quantile(s.all, 99), Max: quantile(s.all, 100),
		}}
	}
	return out
}

// Quantile is the latency that percent of the calls did not exceed.
func (s Summary) Quantile(percent float64) time.Duration { return quantile(s.Hist, percent) }

func quantile(h *hdrhistogram.Histogram, percent float64) time.Duration {
	return time.Duration(h.ValueAtPercentile(percent)) * time.Microsecond
}
