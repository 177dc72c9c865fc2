package overload

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A schedulerDelay measures how long arriving data waits before a goroutine reads it. When
// all processors are busy, this is most of the latency that a client sees, and handlers
// cannot measure it: the runtime polls the network rarely, and then has other goroutines to
// run. So a byte is sent through a pipe at intervals, as if a client had sent it.
type schedulerDelay struct {
	epoch time.Time
	sent  atomic.Int64 // when the current byte was sent, since epoch; 0 if there is none
	last  atomic.Int64 // the delay of the previous byte
}

// probeInterval is the time between two bytes, unless the first is still on its way.
const probeInterval = 10 * time.Millisecond

func newSchedulerDelay() *schedulerDelay { return &schedulerDelay{epoch: time.Now()} }

// current returns the delay of the previous byte, or the time since the current one was
// sent if that is longer.
func (d *schedulerDelay) current(now time.Time) time.Duration {
	delay := time.Duration(d.last.Load())
	if sent := d.sent.Load(); sent != 0 {
		delay = max(delay, now.Sub(d.epoch)-time.Duration(sent))
	}
	return delay
}

func (d *schedulerDelay) probeSent() { d.sent.Store(max(1, int64(time.Since(d.epoch)))) }

func (d *schedulerDelay) probeReceived() {
	d.last.Store(int64(time.Since(d.epoch)) - d.sent.Load())
	d.sent.Store(0)
}

// run measures until ctx ends.
func (d *schedulerDelay) run(ctx context.Context) error {
	in, out, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for b := make([]byte, 1); ; d.probeReceived() {
			if _, err := in.Read(b); err != nil {
				return
			}
		}
	})
	defer func() {
		_ = out.Close() // ends the reader
		reader.Wait()
		_ = in.Close()
		d.sent.Store(0)
		d.last.Store(0)
	}()
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if d.sent.Load() != 0 {
			continue
		}
		d.probeSent()
		if _, err := out.Write([]byte{0}); err != nil {
			return fmt.Errorf("write to a pipe: %w", err)
		}
	}
}
