package events

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseCursor(t *testing.T) {
	whole := func(rev int64) position { return position{rev, endOfRevision} }
	for text, want := range map[string]eventCursor{
		"1207":        {positions: map[string]position{"default": whole(1207)}},
		"0":           {positions: map[string]position{"default": whole(0)}},
		"1207.3":      {positions: map[string]position{"default": {1207, 3}}},
		"eu:7,us-1:8": {positions: map[string]position{"eu": whole(7), "us-1": whole(8)}},
		"7,us:8.1":    {positions: map[string]position{"default": whole(7), "us": {8, 1}}},
		"7~k3xqa.12":  {positions: map[string]position{"default": whole(7)}, feedID: "k3xqa", seq: 12},
		"eu:7.0~a.0":  {positions: map[string]position{"eu": {7, 0}}, feedID: "a"},
	} {
		got, err := parseCursor(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", "x", "-1", "+1", "1.", ".1", "1.-1", "1.2.3", "7,", ",7", "7,8", "eu:7,eu:8", "EU:7", "eu:", ":7", "eu:us:7",
		"7~", "7~a", "7~a.", "7~.1", "7~a.b", "7~a.1~b.2", "7~A.1", " 7", "7 ", "7\n", "9223372036854775808",
		"7~a.99999999999999999999", "1.9999999999", "7;a", "७", strings.Repeat("1", 20), strings.Repeat("a:1,", 9000) + "b:1",
		strings.Repeat("a", 33) + ":1",
	} {
		_, err := parseCursor(text)
		assert.ErrorIs(t, err, ErrBadCursor, text)
	}
}

// A valid cursor that is written and parsed again is the same cursor.
func FuzzParseCursor(f *testing.F) {
	for _, seed := range []string{"1207", "eu:1207.3,us:88~k3xqa.12", "", "~", "a:1,a:2", "1.2147483647"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCursor(text)
		if err != nil {
			require.ErrorIs(t, err, ErrBadCursor)
			return
		}
		require.NotEmpty(t, c.positions)
		var all shardPositions
		for name, at := range c.positions {
			all = append(all, shardPosition{&Publisher{shard: name}, at})
		}
		feedID := c.feedID
		if feedID == "" {
			feedID = "x"
		}
		again, err := parseCursor(all.cursor(feedID, c.seq))
		require.NoError(t, err)
		require.Equal(t, c.positions, again.positions)
		require.Equal(t, c.seq, again.seq)
	})
}
