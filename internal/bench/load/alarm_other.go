//go:build !linux

package load

import (
	"errors"
	"time"
)

type alarm struct{}

func newAlarm() (*alarm, error) { return nil, errors.ErrUnsupported }

func (*alarm) sleep(d time.Duration) { time.Sleep(d) }

func (*alarm) close() {}
