package problem

import (
	"math/rand/v2"
	"strconv"
	"time"
)

// RetryAdvice is the part of a detail about what a client does.
const RetryAdvice = "Continue playback, and repeat the request after the number of seconds in Retry-After."

// WholeSeconds rounds up, so that a client that waits so long does not retry too early.
func WholeSeconds(d time.Duration) int {
	return max(1, int((d+time.Second-1)/time.Second))
}

// RetryAfterJittered is a Retry-After of 1 to 5 seconds, spread so that the clients of an
// outage do not come back as one.
func RetryAfterJittered() string { return strconv.Itoa(1 + rand.IntN(5)) }
