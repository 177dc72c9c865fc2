package api

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A lag tells how long what arrives waits before the node gets at it. Where the
// processors are busy without end that is most of what a client waits, and no handler
// sees it: the runtime looks at the network only now and then, and has others to run. So
// from time to time a byte goes through a pipe, as if it had come from a client.
type lag struct {
	began time.Time
	sent  atomic.Int64 // when the byte under way was sent, since began; 0 for none
	last  atomic.Int64 // how long the last one waited
}

// lagEvery is how often a byte is sent, if the last one has arrived.
const lagEvery = 10 * time.Millisecond

func newLag() *lag { return &lag{began: time.Now()} }

// at is how long what arrived last has waited, or what is under way waits already.
func (l *lag) at(now time.Time) time.Duration {
	waited := time.Duration(l.last.Load())
	if sent := l.sent.Load(); sent != 0 {
		waited = max(waited, now.Sub(l.began)-time.Duration(sent))
	}
	return waited
}

func (l *lag) send() { l.sent.Store(max(1, int64(time.Since(l.began)))) }

func (l *lag) arrive() {
	l.last.Store(int64(time.Since(l.began)) - l.sent.Load())
	l.sent.Store(0)
}

// watch measures until ctx ends.
func (l *lag) watch(ctx context.Context) error {
	in, out, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for b := make([]byte, 1); ; l.arrive() {
			if _, err := in.Read(b); err != nil {
				return
			}
		}
	})
	defer func() {
		_ = out.Close() // ends the reading
		reading.Wait()
		_ = in.Close()
		l.sent.Store(0)
		l.last.Store(0)
	}()
	every := time.NewTicker(lagEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		if l.sent.Load() != 0 {
			continue
		}
		l.send()
		if _, err := out.Write([]byte{0}); err != nil {
			return fmt.Errorf("write to a pipe: %w", err)
		}
	}
}
