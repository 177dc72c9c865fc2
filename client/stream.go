package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"streamcount/api/apitype"
)

// A Stream is one running playback. It renews its lease in the background until
// it is stopped or ends.
type Stream struct {
	c    *Client
	user string
	id   string
	halt func()        // makes the goroutine return
	done chan struct{} // closed when it has
	turn chan struct{} // held by the Stop that talks to the service

	mu     sync.Mutex // never held across I/O
	info   apitype.Stream
	err    error
	silent bool // the service need not be told that the stream is over
}

// Start takes one of user's slots and keeps it until the Stream is stopped or
// ends. ctx bounds the start alone: a Stream lives on when ctx ends.
//
// A refusal is a [*LimitError]. Failures that look transient (5xx, 429, no
// answer) are retried with growing waits, at most Config.Attempts times and
// within ctx. A request without Session gets a random one, so that a start sent
// again takes over its own slot. A start that returns any error but a
// [*LimitError] may still have taken a slot whose answer was lost; it lapses
// after one TTL, or is taken over by a start with the same Session.
func (c *Client) Start(ctx context.Context, user string, req apitype.Start) (*Stream, error) {
	if c.isClosed() {
		return nil, ErrClosed
	}
	reply, sent, err := c.start(ctx, user, req)
	if err != nil {
		return nil, err
	}
	return c.keep(ctx, user, *reply.Stream, sent)
}

// Resume keeps a stream that was started elsewhere, by its id. It sends the
// first heartbeat before it returns; a stream that is gone is an [*EndedError].
// ctx bounds that heartbeat alone.
func (c *Client) Resume(ctx context.Context, user, id string) (*Stream, error) {
	if c.isClosed() {
		return nil, ErrClosed
	}
	var info apitype.Stream
	var sent time.Time
	err := c.persist(ctx, func() (err error) {
		sent = time.Now()
		info, err = c.Heartbeat(ctx, user, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.keep(ctx, user, info, sent)
}

// keep makes a Stream of info, whose lease was renewed by a request that left
// at sent.
func (c *Client) keep(
	ctx context.Context, user string, info apitype.Stream, sent time.Time,
) (*Stream, error) {
	live, halt := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stream{
		c:    c,
		user: user,
		id:   info.ID,
		halt: halt,
		done: make(chan struct{}),
		turn: make(chan struct{}, 1),
		info: info,
	}
	p := pulse{every: c.cfg.Every}
	p.renewed(sent, info)
	if info.Degraded {
		p.degraded(time.Now())
	}
	if err := c.enter(s); err != nil { // closed meanwhile: nobody is left to play it
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

// Info is what the service last said about the stream.
func (s *Stream) Info() apitype.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// Done is closed when the stream is over, by Stop or otherwise; [Stream.Err]
// says which.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err is nil while the stream lives and after it was stopped. Otherwise it is
// an [*EndedError]: the service's word, or, where none came, [ReasonExpired]
// at the moment when the lease must have lapsed. That is
//
//   - one TTL after the last request left that the service answered with a
//     renewal, on the monotonic clock; or
//   - one TTL after the last answer that was degraded, if that is later. While
//     etcd is away nothing expires, so a stream plays on for as long as any
//     node says so.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// run sends heartbeats until the stream is stopped or ends.
func (s *Stream) run(ctx context.Context, p pulse) {
	defer s.halt()
	err := s.beatUntilEnd(ctx, p)
	s.c.leave(s)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	if err != nil {
		s.c.cfg.Log.InfoContext(ctx, "stream has ended", "user", s.user, "stream", s.id, "err", err)
	}
	close(s.done)
}

// beatUntilEnd returns nil when ctx ended, or why the stream did.
func (s *Stream) beatUntilEnd(ctx context.Context, p pulse) error {
	var last error // what the latest heartbeat failed with
	for {
		alive, cancel := context.WithDeadline(ctx, p.lapses)
		err := pause(alive, time.Until(p.next))
		if err == nil {
			err = s.beat(alive, &p)
		}
		lapsed := alive.Err() != nil
		cancel()
		switch ended, isGone := gone(err); {
		case ctx.Err() != nil:
			return nil
		case isGone:
			s.setSilent()
			return ended
		case err == nil:
			last = nil
		case !lapsed || last == nil:
			last = err
		}
		if lapsed && !time.Now().Before(p.lapses) {
			return &EndedError{Reason: ReasonExpired, Cause: last}
		}
	}
}

// beat sends one heartbeat and notes in p what came of it.
func (s *Stream) beat(ctx context.Context, p *pulse) error {
	ctx, cancel := context.WithTimeout(ctx, p.patience(s.c.cfg.Timeout))
	defer cancel()
	sent := time.Now()
	info, err := s.c.Heartbeat(ctx, s.user, s.id)
	switch {
	case err != nil:
		p.failed(time.Now(), retryAfter(err))
		s.c.cfg.Log.DebugContext(ctx, "heartbeat", "user", s.user, "stream", s.id, "err", err)
		return err
	case info.Degraded:
		p.degraded(time.Now())
		s.note(func(i *apitype.Stream) { i.Degraded = true })
		return errDegraded
	}
	p.renewed(sent, info)
	s.note(func(i *apitype.Stream) { *i = info })
	return nil
}

// errDegraded is why a stream lapses that heard nothing after degraded answers.
var errDegraded = errors.New("the service could not reach etcd")

func (s *Stream) note(f func(*apitype.Stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.info)
}

func (s *Stream) setSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

func (s *Stream) isSilent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silent
}

// Stop ends the stream: it stops the heartbeats, waits for their goroutine, and
// then tells the service, retrying within ctx what looks transient. When it
// returns an error the service may not know, and the slot lapses by itself in
// at most one TTL. A stream that has ended already is no error. Stop may be
// called more than once and from several goroutines; after an error, the next
// call tells the service again.
func (s *Stream) Stop(ctx context.Context) error {
	s.halt()
	<-s.done // soon: whatever it waits for, it was told to stop
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fmt.Errorf("stop stream of %s: %w", s.user, context.Cause(ctx))
	}
	if s.isSilent() {
		return nil
	}
	if _, err := s.c.StopStream(ctx, s.user, s.id); err != nil {
		if _, isGone := gone(err); !isGone {
			return err
		}
	}
	s.setSilent()
	return nil
}
