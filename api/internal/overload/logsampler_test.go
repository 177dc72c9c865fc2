package overload

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLogSampler(t *testing.T) {
	var s LogSampler
	now := time.Now()
	for second := range int64(3) {
		for i := range 1000 {
			kept, ok := s.Allow(now.Add(time.Duration(i) * 900 * time.Microsecond))
			assert.Equal(t, i < MaxLinesPerSecond, ok)
			if i == 0 && second > 0 {
				assert.Equal(t, int64(1000-MaxLinesPerSecond), kept)
			} else {
				assert.Zero(t, kept)
			}
		}
		now = now.Add(time.Second)
	}
}
