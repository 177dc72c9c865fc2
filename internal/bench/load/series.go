package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	maxLatency         = time.Hour // longer latencies are recorded as this
	significantFigures = 3         // of every latency
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, maxLatency.Microseconds(), significantFigures)
}

// A Series collects the latencies of one kind of call, in one histogram and over time.
// It is safe for concurrent use.
type Series struct {
	begin time.Time
	step  time.Duration

	mu      sync.Mutex
	all     *hdrhistogram.Histogram
	current *hdrhistogram.Histogram // of the current step
	at      int64                   // number of the current step
	points  []Point
	first   time.Time // when the earliest call was due
	last    time.Time // when the latest call was answered
}

// A Point summarizes one step of time.
type Point struct {
	At    time.Duration // end of the step, since the beginning of the series
	Count int64
	P50   time.Duration
	P99   time.Duration
	Max   time.Duration
}

// NewSeries returns a Series with one point per step of time.
func NewSeries(begin time.Time, step time.Duration) *Series {
	return &Series{begin: begin, step: step, all: newHistogram(), current: newHistogram()}
}

// Add records n calls that were answered at done with the given latency.
func (s *Series) Add(done time.Time, latency time.Duration, n int64) {
	us := min(max(latency.Microseconds(), 1), maxLatency.Microseconds())
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
	// RecordValues fails only for a value out of range.
	_ = s.all.RecordValues(us, n)
	_ = s.current.RecordValues(us, n)
}

// flush ends the current step and the empty steps before step at.
func (s *Series) flush(at int64) {
	for ; s.at < at; s.at++ {
		p := Point{At: time.Duration(s.at+1) * s.step, Count: s.current.TotalCount()}
		if p.Count > 0 {
			p.P50, p.P99, p.Max = quantile(s.current, 50), quantile(s.current, 99), quantile(s.current, 100)
			s.current.Reset()
		}
		s.points = append(s.points, p)
	}
}

// A Summary is the result of a Series.
type Summary struct {
	Count int64
	Took  time.Duration // from the time at which the first call was due to the last answer
	Hist  *hdrhistogram.Histogram
	// Points omits the last, incomplete step unless it is the only one.
	Points []Point
	Step   time.Duration
}

// Summary summarizes the calls recorded so far.
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

// Quantile returns the latency that percent of the calls did not exceed.
func (s Summary) Quantile(percent float64) time.Duration { return quantile(s.Hist, percent) }

func quantile(h *hdrhistogram.Histogram, percent float64) time.Duration {
	return time.Duration(h.ValueAtPercentile(percent)) * time.Microsecond
}
