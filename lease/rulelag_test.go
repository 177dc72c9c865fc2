package lease

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

// A start that another node was faster than learns from its transaction what the
// user holds now, but not what he may have: it does not refuse by a limit that has
// been raised meanwhile.
func TestStart_DoesNotRefuseByAnOldLimit(t *testing.T) {
	r := newRig(t, Config{Limit: 1})
	other := newLimiter(t, r.honest, Config{Prefix: r.cfg.Prefix, Limit: 1})
	release := r.faults.HoldReply(etcdtest.Watch)
	defer release()
	three := 3
	_, err := other.SetOverride(t.Context(), "maya", Override{Limit: &three})
	require.NoError(t, err)
	mustStart(t, other, "maya", Request{})
	s, current := r.view.user("maya")
	require.True(t, current, "it still relies on what it knows")
	require.Empty(t, s.held)
	st, err := r.Start(t.Context(), "maya", Request{})
	require.NoError(t, err)
	assert.Equal(t, 2, st.Count)
	assert.Equal(t, 3, st.Limit)
}
