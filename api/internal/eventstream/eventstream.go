// Package eventstream sends events to clients as server-sent events.
package eventstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"streamcount/events"
	"streamcount/internal/retry"
)

const (
	maxRate  = 20_000 // events per second; at a higher rate followers get gaps
	maxBatch = 256    // events in one write
)

// A Sender sends the event streams of a node, and bounds what they cost.
type Sender struct {
	KeepAliveInterval time.Duration // between keep-alive comments
	MinWriteInterval  time.Duration // between writes, so that many events share one
	WriteTimeout      time.Duration // of one write
	MaxDuration       time.Duration // of one event stream
	RecheckInterval   time.Duration // between checks of the caller's rights

	rate   *rate.Limiter // of events, for all event streams together
	ctx    context.Context
	cancel context.CancelFunc
}

// NewSender returns a Sender with the intervals of the service.
func NewSender() *Sender {
	ctx, cancel := context.WithCancel(context.Background())
	return &Sender{
		KeepAliveInterval: 15 * time.Second, MinWriteInterval: 20 * time.Millisecond, WriteTimeout: 10 * time.Second,
		MaxDuration: 30 * time.Minute, RecheckInterval: 3 * time.Second,
		rate: rate.NewLimiter(maxRate, maxRate), ctx: ctx, cancel: cancel,
	}
}

// Close ends all event streams.
func (s *Sender) Close() { s.cancel() }

// Closed reports whether Close has been called.
func (s *Sender) Closed() bool { return s.ctx.Err() != nil }

// SetHeaders sets the headers of an event stream.
func SetHeaders(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // proxies would keep events until they have a page full
}

// A Stream is what one client receives.
type Stream struct {
	Follower *events.Follower
	Encode   func(*events.Event) []byte // returns the data of an event
	Allowed  func() bool                // reports whether the caller may still receive events
}

// Send sends events until ctx or MaxDuration ends, the caller loses the right to receive them,
// or s is closed. It returns an error if the client does not read them.
func (s *Sender) Send(ctx context.Context, w http.ResponseWriter, st Stream) error {
	var checking sync.WaitGroup
	defer checking.Wait()
	ctx, cancel := context.WithTimeout(ctx, s.MaxDuration)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	checking.Go(func() {
		for retry.Sleep(ctx, s.RecheckInterval) == nil {
			if !st.Allowed() {
				cancel()
			}
		}
	})
	t := &writer{Sender: s, Stream: st, out: w, control: http.NewResponseController(w)}
	// The read timeout of the server is for short requests. It would end the event stream.
	if err := t.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	SetHeaders(w.Header())
	w.WriteHeader(http.StatusOK)
	return t.run(ctx)
}

// A writer writes one event stream.
type writer struct {
	*Sender
	Stream
	out       http.ResponseWriter
	control   *http.ResponseController
	buf       []byte
	lastWrite time.Time
}

// run writes events until ctx ends or a write fails.
func (t *writer) run(ctx context.Context) error {
	// The delay before a reconnection differs, so that not all clients reconnect at once.
	t.buf = fmt.Appendf(t.buf, "retry: %d\n\n", 1000+rand.IntN(2000))
	for woken := false; ; {
		polled := t.poll()
		if polled == 0 && time.Since(t.lastWrite) >= t.KeepAliveInterval {
			t.keepAlive()
		}
		if t.rate.WaitN(ctx, polled) != nil {
			return nil
		}
		if err := t.flush(); err != nil {
			return err
		}
		if (polled > 0 || woken) && retry.Sleep(ctx, t.MinWriteInterval) != nil {
			return nil
		}
		if polled > 0 {
			continue
		}
		untilKeepAlive, stop := context.WithDeadline(ctx, t.lastWrite.Add(t.KeepAliveInterval))
		woken = t.Follower.Wait(untilKeepAlive) == nil
		stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// poll takes at most maxBatch events from the follower, and returns how many.
func (t *writer) poll() int {
	for n := range maxBatch {
		e := t.Follower.Next()
		if e == nil {
			return n
		}
		t.buf = fmt.Appendf(t.buf, "id: %s\nevent: %s\ndata: ", t.Follower.Cursor(), e.Kind)
		t.buf = append(t.buf, t.Encode(e)...)
		t.buf = append(t.buf, "\n\n"...)
	}
	return maxBatch
}

// keepAlive adds a comment that keeps the connection open, and the current cursor, because the
// client's filter may have excluded all events since the last one.
func (t *writer) keepAlive() {
	t.Follower.AdvanceCursor()
	t.buf = fmt.Appendf(t.buf, ": nothing new\nid: %s\n\n", t.Follower.Cursor())
}

// flush sends the buffer.
func (t *writer) flush() error {
	if len(t.buf) == 0 {
		return nil
	}
	err := t.control.SetWriteDeadline(time.Now().Add(t.WriteTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := t.out.Write(t.buf); err != nil {
		return err
	}
	t.buf, t.lastWrite = t.buf[:0], time.Now()
	return t.control.Flush()
}
