package replica

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"streamcount/internal/testing/testlog"
	"streamcount/lease/internal/monotonic"
	"streamcount/lease/internal/schema"
)

// A replica that does not become current is logged once, with the reason.
func TestReplica_WarnsWhenStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &testlog.Buffer{}
		v := New(nil, nil, schema.Keys{Prefix: "/t"}, Config{Log: slog.New(slog.NewTextHandler(log, nil))})
		err := errors.New("cut off")
		v.lastError.Store(&err)
		ctx, stop := context.WithCancel(t.Context())
		go v.WarnWhenStale(ctx)
		lines := func() (warnings, again int) {
			synctest.Wait()
			return strings.Count(log.String(), "is not current"), strings.Count(log.String(), "current again")
		}
		time.Sleep(staleWarnDelay - staleCheckInterval)
		warnings, _ := lines()
		assert.Zero(t, warnings, "no warning during the first list")
		time.Sleep(staleWarnDelay)
		warnings, again := lines()
		assert.Equal(t, [2]int{1, 0}, [2]int{warnings, again})
		assert.Contains(t, log.String(), "cut off")
		v.lastProgress.Store(int64(monotonic.Of(time.Now())))
		time.Sleep(staleCheckInterval)
		warnings, again = lines()
		assert.Equal(t, [2]int{1, 1}, [2]int{warnings, again})
		time.Sleep(2 * staleWarnDelay)
		warnings, _ = lines()
		assert.Equal(t, 2, warnings)
		stop()
	})
}
