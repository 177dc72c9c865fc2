package breaker

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The breaker is open from the first failure that comes openAfter or later after the last
// successful probe was sent, until the next success.
func TestBreaker_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		b := New(nil, time.Second, slog.New(slog.DiscardHandler))
		b.lastAnswer = now
		asked, open, closed := now, false, time.Time{}
		ask := func(answer bool) func(*rapid.T) {
			return func(t *rapid.T) {
				began := now
				now = now.Add(time.Duration(rapid.IntRange(0, int(probeTimeout/time.Millisecond)).Draw(t, "ms")) * time.Millisecond)
				var err error
				if !answer {
					err = errors.New("no response")
				}
				wait := b.observe(began, now, err)
				if answer {
					if open {
						closed = now
					}
					asked, open = began, false
				} else if now.Sub(asked) >= openAfter {
					open = true
				}
				require.Equal(t, open, b.IsOpen())
				require.True(t, !open || wait == probeIntervalOpen, "the probe interval while open")
				require.Equal(t, !closed.IsZero(), b.closedAt.Load() != 0)
				now = now.Add(wait)
			}
		}
		t.Repeat(map[string]func(*rapid.T){"answer": ask(true), "no response": ask(false), "more": ask(false)})
	})
}
