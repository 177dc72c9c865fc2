package bench

import (
	"cmp"
	"fmt"
	"time"
)

// A Progress shows the progress of a benchmark: on a terminal in one line that is
// overwritten, otherwise in a line every 10 seconds.
type Progress struct {
	Write    func(line string) // line contains the control characters that overwrite the previous line
	Terminal bool
	Width    int // of the terminal; 0 if unknown

	quit chan struct{}
	done chan struct{}
}

// A period is a phase of known length.
type period struct {
	start  time.Time
	length time.Duration
}

// progress returns how much of the period has passed at now, as text.
func (s *period) progress(now time.Time) string {
	if s == nil || s.length <= 0 {
		return ""
	}
	passed := min(max(now.Sub(s.start), 0), s.length)
	left := (s.length - passed).Round(time.Second)
	return fmt.Sprintf(" %d%%, %v left", 100*passed/s.length, left)
}

// follow shows the progress of tr until stop is called.
func (p *Progress) follow(title string, tr *targetRun) (stop func()) {
	if p == nil {
		return func() {}
	}
	p.quit, p.done = make(chan struct{}), make(chan struct{})
	every := 10 * time.Second
	if p.Terminal {
		every = 200 * time.Millisecond
	}
	begin := time.Now()
	go p.run(title, tr, every)
	if !p.Terminal {
		p.printLine(title)
	}
	return func() {
		close(p.quit)
		<-p.done
		if !p.Terminal {
			p.printLine(fmt.Sprintf("%s: done after %v, %d answers%s",
				title, time.Since(begin).Round(100*time.Millisecond), tr.answers.Load(), faultSummary(tr.faults)))
		}
	}
}

func (p *Progress) run(title string, tr *targetRun, every time.Duration) {
	defer close(p.done)
	begin, answered := time.Now(), tr.answers.Load()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
		now := time.Now()
		rate := float64(tr.answers.Load()-answered) / now.Sub(begin).Seconds()
		begin, answered = now, tr.answers.Load()
		p.printLine(fmt.Sprintf("%s: %s%s, %.0f answers/s%s",
			title, *tr.phaseText.Load(), tr.period.Load().progress(now), rate, faultSummary(tr.faults)))
	}
}

func faultSummary(t *faultCounter) string {
	if n := t.total(); n > 0 {
		return fmt.Sprintf(", %d faults", n)
	}
	return ""
}

func (p *Progress) printLine(line string) {
	if p.Terminal {
		const clear = "\r\x1b[K"
		// A wrapped line cannot be overwritten, and some terminals wrap a full line.
		if width := max(cmp.Or(p.Width, 100)-1, 1); len(line) > width {
			line = line[:width]
		}
		p.Write(clear + line)
		return
	}
	p.Write(line + "\n")
}

// clear removes the line.
func (p *Progress) clear() {
	if p != nil && p.Terminal {
		p.Write("\r\x1b[K")
	}
}
