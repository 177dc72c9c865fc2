package load

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// An alarm sleeps to within some ten microseconds. An idle Go program's own
// timers may be a millisecond late, which is more than many answers take.
type alarm struct {
	fd   int
	file *os.File // its reads park the goroutine, not a thread
	buf  [8]byte
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &alarm{fd: fd, file: os.NewFile(uintptr(fd), "timer")}, nil
}

func (a *alarm) sleep(d time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		time.Sleep(d)
		return
	}
	_, _ = a.file.Read(a.buf[:]) // who wakes early looks at the clock again
}

func (a *alarm) close() { _ = a.file.Close() }
