// Package monotonic provides times that steps of the wall clock do not affect.
package monotonic

import "time"

// A Time is a reading of the monotonic clock in eight bytes, so that it fits into an
// atomic integer. It is in nanoseconds since shortly before the process started. 0
// means never.
type Time int64

var epoch = time.Now().Add(-time.Second) // so that no reading is 0

// Of returns the monotonic reading of t.
func Of(t time.Time) Time {
	return Time(t.Sub(epoch))
}

// WallClock returns now as a wall clock shows it that was set when the process started and
// never stepped.
func WallClock(now time.Time) time.Time { return epoch.Round(0).Add(now.Sub(epoch)) }

// Time returns t as a time with a monotonic reading; the zero time for never.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(t))
}
