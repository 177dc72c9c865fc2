package events

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHistory_IsBounded(t *testing.T) {
	var h History
	for n := range maxSamples + 5 {
		h.add(Sample{Streams: n}, Activity{Starts: int64(3 * n)})
		h.addPoint(time.Unix(int64(n), 0), Activity{Stops: int64(2 * n)}, int64(n))
	}
	got := h.Samples()
	require.Len(t, got, maxSamples)
	assert.Equal(t, []int{5, maxSamples + 4}, []int{got[0].Streams, got[maxSamples-1].Streams})
	assert.EqualValues(t, 3, got[0].Activity.Starts)
	assert.Equal(t, Rates{Stops: 2, Heartbeats: 1}, h.Rates())

	all := map[string]int{}
	for n := range 80 {
		all[fmt.Sprint("r", n)] = n + 1
	}
	top := topRegions(all)
	assert.Len(t, top, maxRegions)
	sum := 0
	for _, n := range top {
		sum += n
	}
	assert.Equal(t, 80*81/2, sum)
	assert.Equal(t, 80, top["r79"])
	assert.Equal(t, 31*32/2, top[otherRegion])
}
