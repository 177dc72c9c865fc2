package bulkend

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// A Query selects the streams to end.
type Query struct {
	Where  []policy.Condition // all must be fulfilled; see [policy.CheckWhere]
	DryRun bool               // end nothing
	Max    int                // of the streams to end; 0 for no maximum
}

// A Result says what a [Query] has matched and ended.
type Result struct {
	Matched int // streams that fulfilled the conditions when the query began
	Users   int // users of these streams
	// Ended are those that this query has ended, as etcd has confirmed. Others of Matched may
	// have ended too: by another call, by expiry, or by a write whose outcome is unknown.
	Ended int
	// Complete means that none of the streams that fulfilled the conditions still runs. For a
	// dry run it means that all streams were compared with the conditions.
	Complete bool
	Sample   []Stream // some of the streams, up to [MaxSample]; for a dry run only
}

// MaxSample is the maximum number of streams in [Result.Sample].
const MaxSample = 20

// A Stream is a stream of a sample.
type Stream struct {
	User                    string
	ID                      string
	StartedAt               time.Time
	Region                  string
	ContentID, ContentTitle string
}

// Deadlines divides the time until the deadline of ctx: new ends begin before until, and the
// returned context, which bounds the ends in progress, leaves time for an answer. Without a
// deadline, until is an hour from now.
func Deadlines(ctx context.Context) (_ context.Context, until time.Time, cancel context.CancelFunc) {
	now := time.Now()
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, now.Add(time.Hour), func() {}
	}
	left := deadline.Sub(now)
	ctx, cancel = context.WithDeadline(ctx, now.Add(left*9/10))
	return ctx, now.Add(left * 3 / 4), cancel
}

// EndAll calls end for the matches, some at once, and returns how many streams it has ended,
// and how many may still run. It begins no call after until or when ctx has ended.
func EndAll(ctx context.Context, until time.Time, matches []Match, end func(context.Context, Match) error) (ended, left int) {
	var next, done, open atomic.Int64
	var workers sync.WaitGroup
	for range min(maxInFlight, len(matches)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(matches) {
					return
				}
				if ctx.Err() != nil || !time.Now().Before(until) {
					open.Add(1)
					continue
				}
				switch err := end(ctx, matches[i]); {
				case err == nil:
					done.Add(1)
				case !errors.Is(err, schema.ErrEnded):
					open.Add(1)
				}
			}
		})
	}
	workers.Wait()
	return int(done.Load()), int(open.Load())
}
