package eventstream

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/events"
	"streamcount/lease"
)

// follow sends a new event stream of a feed, and returns its response and the end of Send.
func follow(t *testing.T, s *Sender, f *events.Feed, allowed func() bool) (*httptest.ResponseRecorder, <-chan error) {
	t.Helper()
	follower, err := f.Follow(t.Context(), "", "")
	require.NoError(t, err)
	w, done := httptest.NewRecorder(), make(chan error, 1)
	st := Stream{Follower: follower, Encode: func(e *events.Event) []byte { return []byte(e.User) }, Allowed: allowed}
	go func() { done <- s.Send(context.WithoutCancel(t.Context()), w, st) }()
	return w, done
}

func always() bool { return true }

func TestSender_SendsEventsAndKeepAlives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := NewSender(), events.NewFeed()
		publisher := f.Publisher("")
		w, done := follow(t, s, f, always)
		synctest.Wait()
		publisher.StartRejected("maya", 7, &lease.LimitError{Limit: 1})
		time.Sleep(3*s.KeepAliveInterval + time.Second)
		assert.False(t, s.Closed())
		s.Close()
		require.NoError(t, <-done)
		assert.True(t, s.Closed())
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "text/event-stream", w.Header().Get("Content-Type"))
		assert.Contains(t, w.Body.String(), "\nevent: refusal\ndata: maya\n\n")
		assert.Equal(t, 1+3, strings.Count(w.Body.String(), ": nothing new\nid: "), "one at the beginning, with the first cursor")
	})
}

func TestSender_EndsAfterMaxDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := NewSender(), time.Now()
		_, done := follow(t, s, events.NewFeed(), always)
		require.NoError(t, <-done)
		assert.Equal(t, s.MaxDuration, time.Since(began))
	})
}

func TestSender_EndsWithTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := NewSender(), time.Now()
		_, done := follow(t, s, events.NewFeed(), func() bool { return time.Since(began) < time.Minute })
		require.NoError(t, <-done)
		assert.Equal(t, time.Minute, time.Since(began))
	})
}
