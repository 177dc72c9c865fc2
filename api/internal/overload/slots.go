package overload

import (
	"net/netip"
	"sync/atomic"
)

// slots limit how many requests are in handlers. Some slots are reserved for heartbeats and
// stops. One client may use only a part of them.
type slots struct {
	max, unreserved, perClient int64

	inFlight   atomic.Int64
	ordinary   atomic.Int64         // of them, requests without a right to reserved slots
	clientUses *quota[netip.Prefix] // of the requests that count for their client
}

func newSlots(maxInFlight int) *slots {
	n := int64(maxInFlight)
	perClient := max(1, n/8)
	return &slots{max: n, unreserved: n - n/8, perClient: perClient, clientUses: newQuota[netip.Prefix](int(perClient))}
}

// A slot is what a request has acquired.
type slot struct {
	reserved, counted bool         // counted: for its client
	client            netip.Prefix // if it is counted
}

// acquire acquires a slot for r. A request counts for its client only while as many slots
// as one client may use are in use: below that all clients have room.
func (s *slots) acquire(r Request) (slot, Bound) {
	out := slot{reserved: r.Class == Reserved}
	if !out.reserved && s.ordinary.Add(1) > s.unreserved {
		s.ordinary.Add(-1)
		return slot{}, RequestsInFlight
	}
	inFlight := s.inFlight.Add(1)
	if inFlight > s.max {
		s.release(out)
		return slot{}, RequestsInFlight
	}
	if inFlight <= s.perClient || r.Unlimited {
		return out, None
	}
	if !s.clientUses.acquire(r.Client) {
		s.release(out)
		return slot{}, RequestsPerAddress
	}
	out.counted, out.client = true, r.Client
	return out, None
}

func (s *slots) release(t slot) {
	s.inFlight.Add(-1)
	if !t.reserved {
		s.ordinary.Add(-1)
	}
	if t.counted {
		s.clientUses.release(t.client)
	}
}
