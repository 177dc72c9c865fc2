//go:build linux

package torture

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A stallMeter measures how late short timers fire, which shows whether the machine has
// had time for all processes. What came late on a machine that had not proves nothing.
type stallMeter struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	elapsed, lost, longest time.Duration // valid after stop
}

const (
	stallTick = 10 * ms
	// A round counts as stalled if one timer was stallLongest late, or all timers
	// together were late for one part in stallShare of the round.
	stallLongest = 250 * ms
	stallShare   = 10
)

func startStallMeter() *stallMeter {
	ctx, cancel := context.WithCancel(context.Background())
	m := &stallMeter{cancel: cancel}
	m.done.Go(func() {
		for ctx.Err() == nil {
			began := now()
			if wait(ctx, stallTick) {
				return
			}
			took := now() - began
			m.elapsed += took
			m.lost += took - stallTick
			m.longest = max(m.longest, took-stallTick)
		}
	})
	return m
}

func (m *stallMeter) stop() {
	m.cancel()
	m.done.Wait()
}

func (m *stallMeter) stalled() bool {
	return m.longest >= stallLongest || m.lost*stallShare >= m.elapsed && m.elapsed > 0
}

func (m *stallMeter) String() string {
	return fmt.Sprintf("timers were at most %v late, and %v of %v in all", m.longest.Round(ms), m.lost.Round(ms), m.elapsed.Round(ms))
}

// judge returns what counts of what was found in a round: on a machine that stalled only
// broken promises, and not what came late.
func (m *stallMeter) judge(t *testing.T, found []string) []string {
	t.Helper()
	if !m.stalled() {
		return found
	}
	var out []string
	for _, what := range found {
		if strings.HasPrefix(what, lateMark) {
			t.Logf("ignored, because the machine stalled (%v): %s", m, what)
			continue
		}
		out = append(out, what)
	}
	return out
}

func TestStallMeter(t *testing.T) {
	late, broken := lateMark+"something", "a promise"
	quiet := &stallMeter{elapsed: time.Second, lost: 50 * ms, longest: 20 * ms}
	assert.Equal(t, []string{late, broken}, quiet.judge(t, []string{late, broken}))
	for _, m := range []*stallMeter{
		{elapsed: time.Second, lost: 300 * ms, longest: 300 * ms}, {elapsed: time.Second, lost: 100 * ms, longest: 20 * ms},
	} {
		assert.Equal(t, []string{broken}, m.judge(t, []string{late, broken}))
		assert.Empty(t, m.judge(t, []string{late}))
	}
}
