package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSparse(t *testing.T) {
	var s sparse
	now := time.Now()
	for second := range int64(3) {
		for i := range 1000 {
			kept, ok := s.pass(now.Add(time.Duration(i) * 900 * time.Microsecond))
			assert.Equal(t, i < sparseLines, ok)
			if i == 0 && second > 0 {
				assert.Equal(t, int64(1000-sparseLines), kept)
			} else {
				assert.Zero(t, kept)
			}
		}
		now = now.Add(time.Second)
	}
}
