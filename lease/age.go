package lease

import (
	"context"
	"errors"
	"time"

	"streamcount/lease/internal/monotonic"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// MinStreamAge is the minimum of [Config.MaxStreamAge]. It is much more than the
// expected differences between the clocks of nodes.
const MinStreamAge = time.Hour

// exceedsMaxAge reports whether a stream has reached the maximum age. The start time of
// a stream is from the clock of the node that started it. The age does not increase if
// the clock of this node is set while it runs.
func (l *Limiter) exceedsMaxAge(value []byte) bool {
	if l.cfg.MaxStreamAge == 0 {
		return false
	}
	started, now := schema.DecodeRecord(value).Started, time.Now()
	if started <= 0 {
		return false
	}
	steady := monotonic.WallClock(now)
	at := time.UnixMilli(started)
	return min(now.Sub(at), steady.Sub(at)) > l.cfg.MaxStreamAge
}

// endAtMaxAge ends a stream that has reached the maximum age. Its player needs a valid
// credential and a free slot to start again.
func (l *Limiter) endAtMaxAge(ctx context.Context, user string, h schema.Entry) error {
	_, err := l.tryEnd(ctx, user, h, schema.NewTombstone(user, h, policy.ReasonExpired))
	if err != nil && !errors.Is(err, ErrEnded) {
		return err
	}
	l.cfg.Log.Debug("ended a stream of the maximum age", "user", user)
	return l.endReasonSeen(h.Nonce)
}

// dropProvisionalAtMaxAge ends a provisional stream if it has reached the maximum age,
// and reports whether it did.
func (l *Limiter) dropProvisionalAtMaxAge(user string, n streamid.Nonce) bool {
	for _, h := range l.provisional.Entries(user) {
		if h.Nonce == n && l.exceedsMaxAge(h.Value) && l.dropProvisional(user, n) != nil {
			l.replica.RecordOwnEnding(user, schema.Tombstone{Nonce: n, Reason: policy.ReasonExpired})
			return true
		}
	}
	return false
}
