package bench

import (
	"cmp"
	"fmt"
	"time"
)

// A Progress shows how far a benchmark is: on a terminal a line that is
// overwritten, else a line now and then.
type Progress struct {
	Write    func(line string) // with everything that it takes to overwrite the last one
	Terminal bool
	Width    int // of the terminal, where known

	quit chan struct{}
	done chan struct{}
}

// A span is a time that passes whatever happens in it.
type span struct {
	begin time.Time
	long  time.Duration
}

// progress is the span at a time, in words.
func (s *span) progress(now time.Time) string {
	if s == nil || s.long <= 0 {
		return ""
	}
	passed := min(max(now.Sub(s.begin), 0), s.long)
	left := (s.long - passed).Round(time.Second)
	return fmt.Sprintf(" %d%%, %v left", 100*passed/s.long, left)
}

// follow shows v until the function returned is called.
func (p *Progress) follow(title string, v *visit) (stop func()) {
	if p == nil {
		return func() {}
	}
	p.quit, p.done = make(chan struct{}), make(chan struct{})
	every := 10 * time.Second
	if p.Terminal {
		every = 200 * time.Millisecond
	}
	begin := time.Now()
	go p.run(title, v, every)
	if !p.Terminal {
		p.show(title)
	}
	return func() {
		close(p.quit)
		<-p.done
		if !p.Terminal {
			p.show(fmt.Sprintf("%s: done after %v, %d answers%s",
				title, time.Since(begin).Round(100*time.Millisecond), v.answers.Load(), faultsSoFar(v.tally)))
		}
	}
}

func (p *Progress) run(title string, v *visit, every time.Duration) {
	defer close(p.done)
	begin, answered := time.Now(), v.answers.Load()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
		now := time.Now()
		rate := float64(v.answers.Load()-answered) / now.Sub(begin).Seconds()
		begin, answered = now, v.answers.Load()
		p.show(fmt.Sprintf("%s: %s%s, %.0f answers/s%s",
			title, *v.doing.Load(), v.span.Load().progress(now), rate, faultsSoFar(v.tally)))
	}
}

func faultsSoFar(t *tally) string {
	if n := t.total(); n > 0 {
		return fmt.Sprintf(", %d faults", n)
	}
	return ""
}

func (p *Progress) show(line string) {
	if p.Terminal {
		const clear = "\r\x1b[K"
		// A line that wraps cannot be overwritten, and some terminals wrap a full one.
		if width := max(cmp.Or(p.Width, 100)-1, 1); len(line) > width {
			line = line[:width]
		}
		p.Write(clear + line)
		return
	}
	p.Write(line + "\n")
}

// stop removes the line.
func (p *Progress) stop() {
	if p != nil && p.Terminal {
		p.Write("\r\x1b[K")
	}
}
