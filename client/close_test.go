package client

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

func TestClient_CloseStopsItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, alive))
		streams := make([]*Stream, 100)
		for i := range streams {
			streams[i] = mustStart(t, c)
		}
		require.NoError(t, streams[0].Stop(t.Context()))
		require.NoError(t, c.Close(t.Context()))
		for _, s := range streams {
			<-s.Done()
			assert.NoError(t, s.Err())
		}
		assert.Len(t, w.requests("/streams/s1"), 100)
		_, err := c.Start(t.Context(), "maya", apitype.Start{})
		require.ErrorIs(t, err, ErrClosed)
		require.NoError(t, c.Close(t.Context()))
	})
}

// A start that is admitted after its Client was closed frees its slot.
func TestClient_CloseDuringStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, alive))
		plain := w.answer
		w.answer = func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return plain(r)
		}
		go func() { assert.NoError(t, c.Close(t.Context())) }()
		_, err := c.Start(t.Context(), "maya", apitype.Start{})
		require.ErrorIs(t, err, ErrClosed)
		synctest.Wait()
		if len(w.requests("/start")) == 1 {
			assert.Len(t, w.requests("/streams/s1"), 1)
		}
	})
}

func TestClient_CloseWithEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, Config{}, service(90, 30, alive))
		s := mustStart(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Close(ctx) // may succeed, because the fake ignores the context
		<-s.Done()
	})
}

func TestClient_Resume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, func(n int) (*http.Response, error) {
			if n < 5 {
				return alive(n)
			}
			return problem(apitype.Problem{Status: 410, Reason: "evicted"})
		}))
		s, err := c.Resume(t.Context(), "maya", "s1")
		require.NoError(t, err)
		assert.Len(t, w.requests("/heartbeat"), 1)
		<-s.Done()
		assert.Len(t, w.requests("/heartbeat"), 5)
		assert.ErrorContains(t, s.Err(), "evicted")
		_, err = c.Resume(t.Context(), "maya", "s1")
		require.ErrorIs(t, err, ErrEnded)
	})
}
