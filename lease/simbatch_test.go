package lease

import (
	"context"
	"errors"
	"slices"
	"time"

	"streamcount/lease/internal/replica"
	"streamcount/lease/streamid"
)

// A simBatch has heartbeats of several viewers, which one call sends.
type simBatch struct {
	requests []HeartbeatRequest
	sent     time.Time
	results  []HeartbeatResult
	done     chan struct{}
}

// heartbeatInBatch sends a heartbeat with those that other viewers send within a quarter
// of a TTL. It returns when the batch was sent, and the result.
func (v *simViewer) heartbeatInBatch(st *simStream) (time.Time, HeartbeatResult) {
	v.mu.Lock()
	b := v.batches[v.home]
	first := b == nil
	if first {
		b = &simBatch{done: make(chan struct{})}
		v.batches[v.home] = b
	}
	at := len(b.requests)
	b.requests = append(b.requests, HeartbeatRequest{v.user, st.id})
	v.mu.Unlock()
	if first {
		time.Sleep(v.upTo(v.ttl / 4))
		v.sendBatch(b)
	}
	<-b.done
	return b.sent, b.results[at]
}

// sendBatch sends a batch with heartbeats that must not be answered as alive and with
// duplicates, and checks the results of those.
func (v *simViewer) sendBatch(b *simBatch) {
	defer close(b.done)
	v.mu.Lock()
	delete(v.batches, v.home)
	viewers := len(b.requests)
	requests := slices.Clone(b.requests)
	for range v.rng.IntN(3) {
		if len(v.ended) > 0 {
			requests = append(requests, v.ended[v.rng.IntN(len(v.ended))])
		}
	}
	v.mu.Unlock()
	requests = append(requests, v.neverStarted()...)
	single := len(requests)
	for range v.rng.IntN(4) {
		requests = append(requests, requests[v.rng.IntN(single)])
	}
	b.sent = time.Now()
	b.results = v.node().Heartbeats(context.Background(), requests)
	v.count("batches")
	if viewers > 1 {
		v.count("batches of several viewers")
	}
	for i, r := range b.results[viewers:single] {
		v.checkNotAlive(requests[viewers+i], r)
	}
	for i, r := range b.results[single:] {
		original := b.results[slices.Index(requests, requests[single+i])]
		if r.ExpiresAt != original.ExpiresAt || r.Degraded != original.Degraded || !errors.Is(r.Err, original.Err) {
			v.fault("equal heartbeats of %v have the results %+v and %+v", requests[single+i], original, r)
		}
	}
}

// neverStarted returns heartbeats of streams that no start has returned.
func (v *simViewer) neverStarted() []HeartbeatRequest {
	unknown := streamid.ID{Lease: 1, Nonce: streamid.Nonce{1}}
	id := v.limiterOf(0).ids.Sign(v.user, unknown)
	return []HeartbeatRequest{{v.user, id}, {v.user + "-other", id}, {v.user, "zzz"}}[:v.rng.IntN(4)]
}

// checkNotAlive checks the result of a heartbeat whose stream has ended, or never existed.
func (v *simViewer) checkNotAlive(b HeartbeatRequest, r HeartbeatResult) {
	switch {
	case r.Err == nil && !r.Degraded:
		v.fault("%v is not a stream, and is answered as alive until %v", b, r.ExpiresAt)
	case r.Err == nil:
	case !errors.Is(r.Err, ErrEnded) && !errors.Is(r.Err, streamid.ErrForeign) && !errors.Is(r.Err, streamid.ErrMalformed):
		v.fault("heartbeat of %v, which is not a stream: %v", b, r.Err)
	}
}

// noteEnded makes later batches contain an ended stream. Until then every replica shows
// the end.
func (v *simViewer) noteEnded(st *simStream) {
	if st.provisional {
		return // other nodes may not have it
	}
	time.AfterFunc(replica.MaxProgressAge+time.Second, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.ended = append(v.ended, HeartbeatRequest{v.user, st.id})
	})
}
