package replica

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/lease/internal/monotonic"
)

// An idle watch cannot be distinguished from a stalled one, so a replica requests
// proofs of progress. etcd answers a progress request on the watch itself, after all
// earlier events. etcd's gRPC proxy drops such requests; behind it the replica puts a
// beacon, a key below its own prefix, and waits for the event. Either proof shows that
// the replica is no older than the request.

const (
	// beaconInterval is the interval between beacons, and the time after which the
	// first beacon of a watch is put if no progress request was answered.
	beaconInterval = time.Second
	// progressTimeout is the time after which an unanswered progress request counts
	// as dropped. etcd drops the requests of a watch that lags.
	progressTimeout = time.Second
)

// watchProgress requests and records the progress of one watch. Only
// [Replica.watch] uses it.
type watchProgress struct {
	replica *Replica
	ctx     context.Context // of the watch

	lastProgress time.Time   // time of the request for the last proof, or of the watch's creation
	pending      []time.Time // unanswered progress requests, oldest first
	answered     bool        // this watch has answered a progress request
	beacon       beacon      // the last one that was put
}

// A beacon is one put of the beacon key. No other node puts the same value.
type beacon struct {
	value string
	sent  time.Time
}

// beaconState is what the watches of a replica have in common.
type beaconState struct {
	name     string
	count    int         // beacons put; only watch uses it
	required atomic.Bool // progress requests are not answered
}

func newBeaconState() *beaconState { return &beaconState{name: rand.Text()} }

// NeedsBeacons reports whether etcd does not answer progress requests, as behind its
// gRPC proxy.
func (r *Replica) NeedsBeacons() bool { return r.beacons.required.Load() }

// watchCreated makes the first request of a watch.
func (s *watchProgress) watchCreated() {
	s.sendRequest(time.Now()) // even if beacons were required: the proxy may have been removed
	if s.replica.NeedsBeacons() {
		s.putBeacon(time.Now())
	}
}

// request requests a proof of progress.
func (s *watchProgress) request(now time.Time) {
	if !s.replica.NeedsBeacons() {
		s.sendRequest(now)
	}
	if !s.answered && now.Sub(s.lastProgress) >= beaconInterval && now.Sub(s.beacon.sent) >= beaconInterval {
		s.putBeacon(now)
	}
}

// sendRequest sends a progress request. An answer does not identify its request, so
// only one request is pending at a time. Before the first answer there may be several,
// because etcd drops requests that arrive before the watch has caught up.
func (s *watchProgress) sendRequest(now time.Time) {
	if n := len(s.pending); n > 0 {
		wait := progressTimeout
		if !s.answered {
			wait = min(progressInterval/10<<min(n-1, 4), progressInterval)
		}
		if now.Sub(s.pending[n-1]) < wait {
			return
		}
		if s.answered {
			s.pending = nil
		}
	}
	s.pending = append(s.pending, now)
	watcher := s.replica.watcher
	go func() { _ = watcher.RequestProgress(s.ctx) }() // it may block until the gRPC stream ends
}

func (s *watchProgress) putBeacon(now time.Time) {
	b := s.replica.beacons
	b.count++
	s.beacon = beacon{b.name + strconv.Itoa(b.count), now}
	kv := s.replica.kv
	go func(value string) {
		ctx, cancel := context.WithTimeout(s.ctx, s.replica.cfg.Timeout)
		defer cancel()
		var lease int64
		if beaconLease := s.replica.cfg.BeaconLease; beaconLease != nil {
			if lease = beaconLease(); lease == 0 {
				return // without a lease the key would never expire; the next beacon follows soon
			}
		}
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(s.replica.keys.Beacon()), Value: []byte(value), Lease: lease})
		if err != nil {
			s.replica.cfg.Log.Debug("cannot put the beacon key, which checks the watch", "err", err)
		}
	}(s.beacon.value)
}

// requestAnswered handles the answer to a progress request. It may be the answer to
// the oldest one.
func (s *watchProgress) requestAnswered() {
	if len(s.pending) == 0 {
		return // a periodic notification, not an answer
	}
	at := s.pending[0]
	s.pending, s.answered = s.pending[1:], true
	if s.replica.beacons.required.CompareAndSwap(true, false) {
		s.replica.cfg.Log.Info("etcd answers progress requests again")
	}
	s.record(at)
}

// findBeacon checks whether events contain the last beacon.
func (s *watchProgress) findBeacon(events []*clientv3.Event) {
	for _, e := range events {
		if e.Type != mvccpb.Event_PUT || s.beacon.value == "" || string(e.Kv.Value) != s.beacon.value ||
			string(e.Kv.Key) != s.replica.keys.Beacon() {
			continue
		}
		if s.requestDropped() && s.replica.beacons.required.CompareAndSwap(false, true) {
			s.replica.cfg.Log.Warn("etcd does not answer progress requests, as behind its gRPC proxy: this node "+
				"puts a key once a second to check its watch; connect the node to etcd directly if possible",
				"key", s.replica.keys.Beacon())
		}
		s.record(s.beacon.sent)
	}
}

// requestDropped reports whether a progress request is unanswered although a later
// beacon has arrived.
func (s *watchProgress) requestDropped() bool {
	return len(s.pending) > 0 && s.pending[0].Before(s.beacon.sent)
}

// record records a proof of progress that was requested at at.
func (s *watchProgress) record(at time.Time) {
	s.lastProgress = at
	s.replica.lastProgress.Store(int64(monotonic.Of(at)))
	s.replica.progressed.wakeAll()
}
