package load

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A preciseTimer sleeps with a precision of about ten microseconds. The runtime's timers
// may be a millisecond late in an idle program, which is more than the latency of many
// answers.
type preciseTimer struct {
	fd   int
	file *os.File // a read blocks the goroutine and no thread
	buf  [8]byte
}

func newPreciseTimer() (*preciseTimer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &preciseTimer{fd: fd, file: os.NewFile(uintptr(fd), "timer")}, nil
}

func (a *preciseTimer) sleep(d time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		time.Sleep(d)
		return
	}
	_, _ = a.file.Read(a.buf[:]) // the caller checks the clock after an early return
}

func (a *preciseTimer) close() { _ = a.file.Close() }
