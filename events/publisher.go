package events

import (
	"cmp"
	"sync/atomic"
	"time"

	"streamcount/lease"
	"streamcount/lease/policy"
)

// A Publisher publishes the events of one etcd cluster. It is the observer of one
// limiter, for one call of [lease.Limiter.Run].
type Publisher struct {
	feed    *Feed
	shard   string
	limiter *lease.Limiter // set by Attach
	closed  atomic.Bool    // it publishes no more

	// The feed's lock guards the following fields.
	last position // of the last published event
	base position // events up to it are no longer held or were not observed; zero before the first list
}

var _ lease.Observer = (*Publisher)(nil)

// Publisher returns the observer for the limiter of a shard; nil if f is nil. An
// empty name means that there is only one etcd cluster.
func (f *Feed) Publisher(shard string) lease.Observer {
	if f == nil {
		return nil
	}
	return &Publisher{feed: f, shard: cmp.Or(shard, defaultShard)}
}

// Attach adds the publisher to the feed. It replaces an earlier one of the same shard.
func (p *Publisher) Attach(l *lease.Limiter) {
	p.feed.mu.Lock()
	defer p.feed.mu.Unlock()
	p.limiter = l
	if old := p.feed.publishers[p.shard]; old != nil {
		old.closed.Store(true)
	}
	p.feed.publishers[p.shard] = p
	p.feed.multiShard.Store(len(p.feed.publishers) > 1)
}

// Detach removes the publisher from the feed.
func (p *Publisher) Detach() {
	p.feed.mu.Lock()
	defer p.feed.mu.Unlock()
	if p.feed.publishers[p.shard] == p {
		delete(p.feed.publishers, p.shard)
		p.feed.multiShard.Store(len(p.feed.publishers) > 1)
	}
	p.closed.Store(true)
}

// StreamsChanged publishes an event for each change.
func (p *Publisher) StreamsChanged(rev int64, changes []lease.Change) {
	now := time.Now()
	events := make([]*Event, len(changes))
	for i, c := range changes {
		e := &Event{
			Kind: Start, At: now, Revision: rev, User: c.User, Streams: c.Streams,
			publisher: p, position: position{rev, int32(i + 1)}, change: c,
		}
		switch {
		case !c.Ended:
			p.feed.starts.Add(1)
		case c.Reason == policy.ReasonExpired:
			e.Kind = Expiry
			p.feed.expiries.Add(1)
		default:
			e.Kind, e.Reason = Stop, c.Reason
			p.feed.stops.Add(1)
		}
		events[i] = e
	}
	events[len(events)-1].position.n = endOfRevision
	p.feed.publish(events, nil)
}

// Relisted publishes a gap: changes since the last event were not observed.
func (p *Publisher) Relisted(rev int64) {
	at := position{rev, endOfRevision}
	p.feed.publish([]*Event{{
		Kind: Gap, At: time.Now(), Revision: rev, publisher: p, position: at,
		Detail: "the node has listed all streams again",
	}}, func() { p.base = at })
}

// StreamCount counts the number of a user's streams for [Feed.Concurrency].
func (p *Publisher) StreamCount(user string, streams int) { p.feed.daily.observe(user, streams) }

// StartAdmitted counts a start that this node has admitted.
func (p *Publisher) StartAdmitted() { p.feed.admitted.Add(1) }

// StartRejected publishes and counts a start that this node has rejected.
func (p *Publisher) StartRejected(user string, rev int64, err *lease.LimitError) {
	p.feed.refusals.Add(1)
	p.feed.daily.observeRejection(user, err)
	p.feed.publish([]*Event{{
		Kind: Refusal, At: time.Now(), Revision: rev, User: user, Streams: len(err.Active), limit: err.Limit,
		limits: err.LimitNames(), publisher: p,
	}}, nil)
}
