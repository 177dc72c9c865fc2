package etcdtest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRelay(t *testing.T) {
	t.Parallel()
	r := NewRelay(t)
	r.To(Endpoints(t)[0])
	c := FaultyClient(t, []string{r.Address()}, nil)
	key := Prefix(t)
	_, err := c.Put(t.Context(), key, "v")
	require.NoError(t, err)
	assert.Equal(t, 1, r.Conns())

	r.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.Get(ctx, key)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, 1, r.Conns(), "the connection is kept")
	r.Thaw()
	_, err = c.Get(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Eventually(t, func() bool { return r.Conns() == 0 }, startTimeout, time.Millisecond)
}

func TestCluster_MoveLeader(t *testing.T) {
	t.Parallel()
	advertised := "http://127.0.0.1:1"
	cl := StartClusterOf(t, Config{Advertise: advertised}, Config{}, Config{})
	old := cl.Leader(t)
	next := (old + 1) % 3
	cl.MoveLeader(t, next)
	assert.Equal(t, next, cl.Leader(t))
	members, err := cl.Client(t).MemberList(t.Context())
	require.NoError(t, err)
	var urls []string
	for _, m := range members.Members {
		urls = append(urls, m.ClientURLs...)
	}
	assert.ElementsMatch(t, []string{advertised, cl.Members[1].Endpoint(), cl.Members[2].Endpoint()}, urls)
}
