package lease

import (
	"context"

	"streamcount/lease/internal/replica"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// An Observer receives what happens to the streams of one etcd cluster, as this node
// observes it. Its methods must not block. [Limiter.Run] calls Attach before and Detach
// after all other methods. StreamsChanged, Relisted and StreamCount are called in
// sequence, in the order of revisions, and the others concurrently.
type Observer interface {
	Attach(*Limiter)
	Detach()

	// StreamsChanged receives the changes of one revision. It must not keep the slice.
	StreamsChanged(rev int64, changes []Change)
	// Relisted reports that the node has read all streams at revision rev. Changes since
	// the last call of StreamsChanged were not observed.
	Relisted(rev int64)
	// StreamCount receives the number of a user's streams whenever it increases.
	StreamCount(user string, streams int)

	// StartAdmitted reports that this node has admitted a start.
	StartAdmitted()
	// StartRejected reports that this node has rejected a start, as of revision rev.
	StartRejected(user string, rev int64, err *LimitError)
}

// A Change is the start or the end of a stream.
type Change struct {
	User    string
	Streams int // number of the user's streams after it
	Ended   bool
	Reason  policy.Reason // why the stream ended
	By      *Replacement  // the stream that took its place; nil if there is none
	Limits  []string      // the names of the limits for which it was evicted; empty unless the plan has several limits
	ID      streamid.ID
	Record  []byte // as stored; must not be changed
}

// replicaObserver passes the changes of a replica to an Observer.
type replicaObserver struct {
	Observer
	changes []Change // scratch space
}

// StreamsChanged implements replica.Observer.
func (o *replicaObserver) StreamsChanged(rev int64, changes []replica.Change) {
	o.changes = o.changes[:0]
	for _, c := range changes {
		o.changes = append(o.changes, Change{c.User, c.Streams, c.Ended, c.Reason, newReplacement(c.By), c.Limits, c.ID, c.Record})
	}
	o.Observer.StreamsChanged(rev, o.changes)
}

// AppliedRevision returns the etcd revision up to which the node's replica contains
// every change.
func (l *Limiter) AppliedRevision() int64 { return l.replica.AppliedRevision() }

// WaitApplied waits until the node's replica contains every change up to revision
// rev. It returns false if ctx ends first, and at once if the replica is not current.
func (l *Limiter) WaitApplied(ctx context.Context, rev int64) bool {
	return l.replica.WaitApplied(ctx, rev)
}

// EachStreamCount calls f with every user in the node's replica and the number of
// their streams, in no particular order. f must not call the limiter.
func (l *Limiter) EachStreamCount(f func(user string, streams int)) { l.replica.EachUserCount(f) }

// ChangedStream returns the stream that a change describes.
func (l *Limiter) ChangedStream(c Change) Stream {
	return streamOf(c.User, l.ids.Sign(c.User, c.ID), c.Record)
}

// CurrentLimit returns the limit of the user of a change, by this node's replica.
func (l *Limiter) CurrentLimit(c Change) int { return l.ruleOf(c.User, c.Record).Limit }
