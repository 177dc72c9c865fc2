package denials

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"streamcount/api/internal/overload"
)

func TestCounter_LogsOncePerMinuteNetworkAndReason(t *testing.T) {
	c, now := NewCounter(), time.Unix(1_000_000, 0)
	client, sameNetwork, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.1")
	for _, call := range []struct {
		client   netip.Addr
		reason   Reason
		after    time.Duration
		unlogged int64
		log      bool
	}{
		{client, token, 0, 0, true},
		{client, token, 0, 0, false},
		{sameNetwork, token, time.Second, 0, false},
		{sameNetwork, key, time.Second, 2, true},
		{other, token, time.Second, 0, true},
		{client, token, 59 * time.Second, 0, false},
		{client, token, time.Minute, 1, true},
	} {
		unlogged, log := c.Add(call.client, call.reason, now.Add(call.after))
		assert.Equal(t, call.log, log, "%+v", call)
		assert.Equal(t, call.unlogged, unlogged, "%+v", call)
	}
	assert.Equal(t, map[string]int64{
		"missing": 0, "header": 0, "key": 1, "token": 6, "unavailable": 0, "forbidden": 0, "foreign": 0,
	}, c.Counts())
}

func TestCounter_BoundsTheLines(t *testing.T) {
	c, now, lines := NewCounter(), time.Unix(1_000_000, 0), 0
	addr := netip.MustParseAddr("10.0.0.0")
	for range 1000 {
		addr = addr.Next()
		if _, log := c.Add(addr, token, now); log {
			lines++
		}
	}
	assert.Equal(t, overload.MaxLinesPerSecond, lines)
	assert.EqualValues(t, 1000, c.Counts()["token"])
}
