//go:build !linux

package load

import (
	"errors"
	"time"
)

type preciseTimer struct{}

func newPreciseTimer() (*preciseTimer, error) { return nil, errors.ErrUnsupported }

func (*preciseTimer) sleep(d time.Duration) { time.Sleep(d) }

func (*preciseTimer) close() {}
