package policy

// A Reason says how a stream ended.
type Reason string

// The reasons. ReasonEnded stands for a reason that is no longer known.
const (
	ReasonStopped  Reason = "stopped"
	ReasonExpired  Reason = "expired"
	ReasonReplaced Reason = "replaced" // by a start of the same session, or one that named the stream
	ReasonEvicted  Reason = "evicted"  // by a start with ReplaceOldest
	ReasonRemoved  Reason = "removed"  // with all streams of the user
	ReasonEnded    Reason = "ended"
)
