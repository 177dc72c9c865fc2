package lease

import "time"

// An instant is a time in eight bytes that no step of the wall clock moves:
// nanoseconds of the monotonic clock since shortly before this process used
// it first. 0 is never.
type instant int64

var epoch = time.Now().Add(-time.Second) // so that no time of ours is 0

func instantOf(t time.Time) instant {
	return instant(t.Sub(epoch))
}

// time returns the zero time for never.
func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(i))
}
