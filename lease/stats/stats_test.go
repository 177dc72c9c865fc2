package stats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// The replica may correct the number of expired streams downwards. The number that is
// shown never decreases.
func TestExpired_NeverDecreases(t *testing.T) {
	c := New(nil)
	assert.EqualValues(t, 5, c.Expired(5))
	assert.EqualValues(t, 5, c.Expired(4))
	assert.EqualValues(t, 6, c.Expired(6))
}

// Beyond 50 names, the limits of plans have one count together.
func TestLimits_ManyNames(t *testing.T) {
	c := New(nil)
	assert.Equal(t, map[string]int64{"total": 0}, c.Snapshot().Refused)
	for i := range 60 {
		c.Refused([]string{"total", fmt.Sprint("limit-", i)})
	}
	c.Refused([]string{"limit-0", "limit-59"})
	c.WouldRefuse(nil)
	got := c.Snapshot().Refused
	assert.Len(t, got, 51)
	assert.EqualValues(t, []int64{60, 2, 1, 12}, []int64{got["total"], got["limit-0"], got["limit-48"], got["other"]})
	assert.Equal(t, map[string]int64{"total": 0}, c.Snapshot().WouldRefuse)
}

func TestHistogram(t *testing.T) {
	h := newHistogram([]int64{1, 4, 16}, 1)
	for _, v := range []int64{1, 2, 4, 5, 16, 17, 100} {
		h.observe(v)
	}
	d := h.distribution()
	assert.Equal(t, map[float64]uint64{1: 1, 4: 3, 16: 5}, d.Cumulative)
	assert.EqualValues(t, 7, d.Count)
	assert.InDelta(t, 145, d.Sum, 0)
	seconds := newHistogram([]int64{int64(time.Second)}, 1e9)
	seconds.observe(int64(500 * time.Millisecond))
	assert.Equal(t, Distribution{Count: 1, Sum: 0.5, Cumulative: map[float64]uint64{1: 1}}, seconds.distribution())
}

// kv answers reads at once.
type kv struct{ pb.KVClient }

func (kv) Range(context.Context, *pb.RangeRequest, ...grpc.CallOption) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{}, nil
}

// A call whose context has ended is not sent, and its error is the cause.
func TestKV_DoesNotSendAfterTheDeadline(t *testing.T) {
	c := New(nil)
	_, err := c.KV(kv{}).Range(t.Context(), nil)
	require.NoError(t, err)
	cause := errors.New("etcd does not answer")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = c.KV(kv{}).Range(ctx, nil)
	require.ErrorIs(t, err, cause)
	assert.EqualValues(t, 1, c.Snapshot().Calls["read"].Count)
}

// The cost of counting one call to etcd.
func BenchmarkKV(b *testing.B) {
	counted := New(nil).KV(kv{})
	for b.Loop() {
		_, _ = counted.Range(b.Context(), nil)
	}
}
