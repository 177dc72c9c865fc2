// Package stats counts what a limiter does.
package stats

import "time"

// A Snapshot is what a limiter has counted since it was created, and its current state.
// Each map has all of its keys from the beginning.
type Snapshot struct {
	// By outcome. Stops include removals.
	Starts, Heartbeats, Stops, Renewals map[string]int64
	// By the name of the limit: starts that it rejected, and starts that a limit which only
	// observes would have rejected. A start counts for each of its limits. Names beyond the
	// first 50 count as "other".
	Refused, WouldRefuse map[string]int64
	LateRenewals         int64 // sent on separate streams
	Expired              int64 // streams of all nodes; never decreases

	Streams, UsersAtLimit int
	Users                 map[int]int // by number of streams; the last is policy.MaxLimit+1 or more
	Regions               map[string]int
	Via                   map[string]int // streams by what started them: "player", "edge", "other"
	ReplicaAge            time.Duration  // since the last progress of the watch, or since the limiter was created
	ReplicaCurrent        bool
	Revision              int64

	UnreadablePlans, UnreadableOverrides int // that this version cannot read

	LeasesReady, LeasesToRevoke int              // leases without a stream
	Leases                      map[string]int64 // how they entered and left the pool

	BatchSize, BatchWait Distribution // writes in a batch; seconds that a write waited for its batch
	WritesWaiting        int64
	Calls                map[string]Distribution // seconds until etcd answered
	CallsFailed          map[string]int64
	LeaderChanges        int64
	EtcdFull             bool // etcd has recently rejected a write because its database is full

	BreakerOpen     bool
	BreakerOpenings int64
	Provisional     int              // streams that are not written to etcd yet
	Synced          map[string]int64 // provisional streams that are written, or have ended
	Cleaning        int              // leases and stops that wait for the background
}
