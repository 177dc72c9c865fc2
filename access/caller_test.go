package access

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every kind of caller and every action, for the caller's own user and another's.
func TestMay(t *testing.T) {
	const yes, who, no, foreign = Allowed, Unauthenticated, Forbidden, OtherUser
	order := []Action{ReadStreams, StartStream, StopStream, EndStreams, ReadTotals, ReadRules, WriteRules, ReadMetrics, ExportData, EraseData, EndAnyStreams}
	require.Len(t, order, int(actions)-1, "an action is missing from this test")
	table := map[Kind][]Decision{
		Anonymous:    {who, who, who, who, who, who, who, who, who, who, who},
		Unrestricted: {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
		Service:      {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
		Reader:       {yes, no, no, no, yes, yes, no, yes, no, no, no},
		Operator:     {yes, no, yes, yes, yes, yes, yes, yes, yes, yes, yes},
		Viewer:       {yes, yes, yes, yes, no, no, no, no, no, no, no},
		Scraper:      {no, no, no, no, no, no, no, yes, no, no, no},
		Edge:         {no, no, no, no, no, no, no, no, no, no, no},
	}
	require.Len(t, table, int(kinds), "a kind is missing from this test")
	for kind, row := range table {
		for i, want := range row {
			c := Caller{Kind: kind, Name: "maya"}
			assert.Equal(t, want, c.Authorize(order[i], "maya"), "%v action %d", kind, order[i])
			if kind == Viewer && want == yes {
				want = foreign
			}
			assert.Equal(t, want, c.Authorize(order[i], "ben"), "%v action %d on another", kind, order[i])
		}
		assert.NotEqual(t, yes, Caller{Kind: kind}.Authorize(NoAction, ""), "%v", kind)
		assert.NotEqual(t, yes, Caller{Kind: kind}.Authorize(actions, ""), "%v", kind)
		assert.NotEmpty(t, fmt.Sprint(Caller{Kind: kind}))
	}
}
