package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"streamcount/api/apitype"
	"streamcount/internal/retry"
)

// A Stream is one running playback. It renews its lease in the background until
// it is stopped or ends.
type Stream struct {
	c        *Client
	user     string
	id       string
	cancel   func()        // makes the goroutine return
	done     chan struct{} // closed when the goroutine has returned
	stopping chan struct{} // held by the Stop that calls the service

	mu    sync.Mutex // never held across I/O
	info  apitype.Stream
	err   error
	ended bool // the service has no such stream any more
}

// Start takes one of user's slots and keeps it until the Stream is stopped or
// ends. ctx bounds only the start: the Stream continues when ctx ends.
//
// A refusal is a [*LimitError]. Failures that look transient (5xx, 429, no
// answer) are retried with backoff, at most Config.Attempts times and within ctx. A request
// without Session gets a random one, so that a repeated start takes over its own slot. After
// any error but a [*LimitError] the outcome is unknown: the stream may exist. It then expires
// after one TTL, or is taken over by a start with the same Session.
func (c *Client) Start(ctx context.Context, user string, req apitype.Start) (*Stream, error) {
	if c.isClosed() {
		return nil, ErrClosed
	}
	reply, sent, err := c.start(ctx, user, req)
	if err != nil {
		return nil, err
	}
	return c.newStream(ctx, user, *reply.Stream, sent)
}

// Resume keeps a stream alive that was started elsewhere, by its id. It sends the first
// heartbeat before it returns; a stream that has ended is an [*EndedError]. ctx bounds only
// that heartbeat.
func (c *Client) Resume(ctx context.Context, user, id string) (*Stream, error) {
	if c.isClosed() {
		return nil, ErrClosed
	}
	var info apitype.Stream
	var sent time.Time
	err := c.retry(ctx, func() (err error) {
		sent = time.Now()
		info, err = c.Heartbeat(ctx, user, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.newStream(ctx, user, info, sent)
}

const (
	startBackoff  = 30 * time.Second // maximum wait while starts are not answered
	rejectBackoff = 5 * time.Minute  // maximum wait while starts are rejected
)

// StartEventually is [Client.Start] for a player that plays before the start is answered. It
// retries until the service admits or refuses the stream, or ctx ends. If the service does
// not answer, it waits up to 30 s between attempts. If the service rejects the request itself,
// it calls Config.OnProblem, and the waits grow from 30 s to 5 min, because the cause may be
// corrected. All attempts have the same session.
func (c *Client) StartEventually(ctx context.Context, user string, req apitype.Start) (*Stream, error) {
	req.Session = cmp.Or(req.Session, rand.Text())
	for n := 0; ; n++ {
		s, err := c.Start(ctx, user, req)
		var wait time.Duration
		switch _, rejected := rejection(err); {
		case rejected:
			slow := min(startBackoff<<min(n, 8), rejectBackoff)
			wait = max(slow/2+mathrand.N(slow/2), min(retryAfter(err), rejectBackoff))
		case err != nil && transient(err) && !errors.Is(err, ErrClosed):
			wait = max(backoff(n+3, startBackoff), min(retryAfter(err), startBackoff))
		default:
			return s, err
		}
		if retry.Sleep(ctx, wait) != nil {
			return nil, err
		}
	}
}

// newStream returns a Stream for info, whose lease was renewed by a request sent at sent.
func (c *Client) newStream(
	ctx context.Context, user string, info apitype.Stream, sent time.Time,
) (*Stream, error) {
	live, halt := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stream{
		c:        c,
		user:     user,
		id:       info.ID,
		cancel:   halt,
		done:     make(chan struct{}),
		stopping: make(chan struct{}, 1),
		info:     info,
	}
	p := schedule{every: c.cfg.Every}
	p.started(sent, info)
	if info.Degraded {
		p.degraded(time.Now())
	}
	if err := c.register(s); err != nil { // the Client was closed
		halt()
		close(s.done)
		return nil, errors.Join(err, s.Stop(ctx))
	}
	go s.run(live, p)
	return s, nil
}

// ID is the stream's id.
func (s *Stream) ID() string { return s.id }

// User is the user whose stream it is.
func (s *Stream) User() string { return s.user }

// Info returns the service's last answer about the stream.
func (s *Stream) Info() apitype.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// Done returns a channel that is closed when the stream is over, by Stop or otherwise.
// [Stream.Err] is the reason.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err is nil while the stream lives and after it was stopped. Otherwise it is an
// [*EndedError]: from the service, or, if the service does not answer, with [ReasonExpired]
// when the lease has expired. That is
//
//   - one TTL after the last request was sent that the service answered with a renewal, by
//     the monotonic clock, or, after a start, when its answer says; or
//   - one TTL after the last degraded answer, if that is later. While etcd is unavailable no
//     lease expires, so a stream continues while any node answers.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// run sends heartbeats until the stream is stopped or ends.
func (s *Stream) run(ctx context.Context, p schedule) {
	defer s.cancel()
	err := s.keepAlive(ctx, p)
	s.c.unregister(s)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	if err != nil {
		s.c.cfg.Log.InfoContext(ctx, "stream has ended", "user", s.user, "stream", s.id, "err", err)
	}
	close(s.done)
}

// keepAlive sends heartbeats until ctx or the stream ends. It returns nil in the first case,
// and the reason in the second.
func (s *Stream) keepAlive(ctx context.Context, p schedule) error {
	var last error // of the latest heartbeat
	for {
		alive, cancel := context.WithDeadline(ctx, p.expires)
		err := retry.Sleep(alive, time.Until(p.next))
		if err == nil {
			err = s.sendHeartbeat(alive, &p)
		}
		lapsed := alive.Err() != nil
		cancel()
		switch ended, isGone := asEnded(err); {
		case ctx.Err() != nil:
			return nil
		case isGone:
			s.markEnded()
			return ended
		case err == nil:
			last = nil
		case !lapsed || last == nil:
			last = err
		}
		if lapsed && !time.Now().Before(p.expires) {
			return &EndedError{Reason: ReasonExpired, Cause: last}
		}
	}
}

// sendHeartbeat sends one heartbeat and records its outcome in p.
func (s *Stream) sendHeartbeat(ctx context.Context, p *schedule) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout(s.c.cfg.Timeout))
	defer cancel()
	sent := time.Now()
	info, err := s.c.Heartbeat(ctx, s.user, s.id)
	switch {
	case err != nil:
		_, isGone := asEnded(err)
		if _, rejected := rejection(err); rejected && !isGone && !p.rejected {
			p.rejected = true
			s.c.reportRejection("heartbeat", s.user, err)
		}
		p.failed(time.Now(), retryAfter(err))
		s.c.cfg.Log.DebugContext(ctx, "heartbeat", "user", s.user, "stream", s.id, "err", err)
		return err
	case info.Degraded:
		p.degraded(time.Now())
		s.updateInfo(func(i *apitype.Stream) { i.Degraded, i.Token = true, cmp.Or(info.Token, i.Token) })
		return errDegraded
	}
	p.renewed(sent, info)
	s.updateInfo(func(i *apitype.Stream) { *i = info })
	return nil
}

// errDegraded is the cause of a stream that expires after degraded answers.
var errDegraded = errors.New("the service could not reach etcd")

func (s *Stream) updateInfo(f func(*apitype.Stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.info)
}

func (s *Stream) markEnded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

func (s *Stream) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Stop ends the stream: it stops the heartbeats, waits for their goroutine, and then calls
// the service, retrying transient failures within ctx. After an error the outcome is unknown,
// and the slot expires in at most one TTL. Stopping a stream that has ended is not an error.
// Stop may be called more than once and from several goroutines; after an error, the next
// call repeats the request.
func (s *Stream) Stop(ctx context.Context) error {
	s.cancel()
	<-s.done // returns soon, because its context has ended
	select {
	case s.stopping <- struct{}{}:
		defer func() { <-s.stopping }()
	case <-ctx.Done():
		return fmt.Errorf("stop stream of %s: %w", s.user, context.Cause(ctx))
	}
	if s.hasEnded() {
		return nil
	}
	if _, err := s.c.StopStream(ctx, s.user, s.id); err != nil {
		if _, isGone := asEnded(err); !isGone {
			return err
		}
	}
	s.markEnded()
	return nil
}
