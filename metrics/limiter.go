package metrics

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"streamcount/lease/policy"
	"streamcount/lease/stats"
)

// registerShards registers the metrics of the limiter of each shard. shards returns nil for
// a shard that the node has not reached.
func registerShards(r *prometheus.Registry, shards func() map[string]*stats.Snapshot) {
	each := func(read func(shard string, m *stats.Snapshot)) {
		if shards == nil {
			return
		}
		for shard, m := range shards() {
			read(labelValue(shard), m)
		}
	}
	common := []string{"shard"}
	r.MustRegister(
		newCollector(reachedFamilies, common, func(read func(bool, ...string)) {
			each(func(shard string, m *stats.Snapshot) { read(m != nil, shard) })
		}),
		newCollector(limiterFamilies, common, func(read func(*stats.Snapshot, ...string)) {
			each(func(shard string, m *stats.Snapshot) {
				if m != nil {
					read(m, shard)
				}
			})
		}),
	)
}

var reachedFamilies = []family[bool]{
	{"shard_reached", "1 if the node has reached the etcd cluster of the shard, 0 otherwise.", gauge, nil,
		func(reached bool, s sink) { s.value(boolValue(reached)) }},
}

var limiterFamilies = []family[*stats.Snapshot]{
	{"starts_total", "Starts that this node answered, by outcome.", counter, []string{"outcome"},
		func(m *stats.Snapshot, s sink) { s.values(m.Starts) }},
	{"refusals_total", "Starts that this node refused, by the limit that refused them. A start counts for each of its limits.", counter, []string{"limit"},
		func(m *stats.Snapshot, s sink) { s.values(m.Refused) }},
	{"would_refuse_total", "Starts that this node admitted, and that a limit which only observes would have refused.", counter, []string{"limit"},
		func(m *stats.Snapshot, s sink) { s.values(m.WouldRefuse) }},
	{"heartbeats_total", "Heartbeats that this node answered, by outcome.", counter, []string{"outcome"},
		func(m *stats.Snapshot, s sink) { s.values(m.Heartbeats) }},
	{"stops_total", "Stops and removals that this node carried out, by outcome.", counter, []string{"outcome"},
		func(m *stats.Snapshot, s sink) { s.values(m.Stops) }},
	{"expired_streams_total", "Streams of all nodes that expired while this node was running.", counter, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.Expired)) }},

	{"streams", "Streams of all nodes, in this node's replica.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.Streams)) }},
	{"users", "Users of all nodes, by number of streams.", gauge, []string{"streams"}, usersByStreams},
	{"users_at_limit", "Users who have reached their limit.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.UsersAtLimit)) }},
	{"region_streams", "Streams of all nodes, by the region in which they were started.", gauge, []string{"region"}, streamsByRegion},
	{"via_streams", "Streams of all nodes, by what started them: the player, or a check of the edge in its place.", gauge, []string{"via"},
		func(m *stats.Snapshot, s sink) {
			for via, n := range m.Via {
				s.value(float64(n), via)
			}
		}},

	{"replica_age_seconds", "Time since the last message of the watch that updates the replica.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(m.ReplicaAge.Seconds()) }},
	{"replica_current", "1 if this node answers from its replica, 0 if it reads from etcd.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(boolValue(m.ReplicaCurrent)) }},
	{"replica_revision", "The etcd revision of the replica.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.Revision)) }},
	{"unreadable_rules", "Stored plans and limits of users that this version cannot read.", gauge, []string{"kind"},
		func(m *stats.Snapshot, s sink) {
			s.value(float64(m.UnreadablePlans), "plan")
			s.value(float64(m.UnreadableOverrides), "user")
		}},

	{"pool_leases", "Leases without a stream: ready for a start, or waiting to be revoked.", gauge, []string{"state"},
		func(m *stats.Snapshot, s sink) {
			s.value(float64(m.LeasesReady), "ready")
			s.value(float64(m.LeasesToRevoke), "revoking")
		}},
	{"pool_moves_total", "Leases that entered the pool (granted, returned) or left it (taken, reused, revoked, abandoned).", counter, []string{"move"},
		func(m *stats.Snapshot, s sink) { s.values(m.Leases) }},
	{"batch_waiting_writes", "Writes that are waiting for a batch.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.WritesWaiting)) }},
	{"renewals_total", "Renewals of leases, by outcome. Coalesced renewals needed no request.", counter, []string{"outcome"},
		func(m *stats.Snapshot, s sink) { s.values(m.Renewals) }},
	{"late_renewals_total", "Renewals that were sent on a separate stream because the lease was about to expire.", counter, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.LateRenewals)) }},

	{"etcd_call_failures_total", "Calls to etcd that failed or timed out.", counter, []string{"call"},
		func(m *stats.Snapshot, s sink) { s.values(m.CallsFailed) }},
	{"etcd_leader_changes_total", "Changes of the etcd leader that this node observed.", counter, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.LeaderChanges)) }},
	{"etcd_full", "1 if etcd recently rejected a write because its database is full.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(boolValue(m.EtcdFull)) }},
	{"circuit_breaker_open", "1 while the circuit breaker is open: calls fail at once because etcd does not respond.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(boolValue(m.BreakerOpen)) }},
	{"circuit_breaker_openings_total", "How often the circuit breaker opened.", counter, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.BreakerOpenings)) }},
	{"provisional_streams", "Streams that this node admitted during an outage and has not written to etcd.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.Provisional)) }},
	{"provisional_synced_total", "Provisional streams that were written, rejected or expired.", counter, []string{"outcome"},
		func(m *stats.Snapshot, s sink) { s.values(m.Synced) }},
	{"cleanup_waiting", "Leases to revoke and streams to stop in the background.", gauge, nil,
		func(m *stats.Snapshot, s sink) { s.value(float64(m.Cleaning)) }},

	{"batch_writes", "Writes of users in one transaction.", 0, nil,
		func(m *stats.Snapshot, s sink) { s.distribution(m.BatchSize) }},
	{"batch_wait_seconds", "Time that a write waited for its batch.", 0, nil,
		func(m *stats.Snapshot, s sink) { s.distribution(m.BatchWait) }},
	{"etcd_call_duration_seconds", "Time until etcd responded.", 0, []string{"call"},
		func(m *stats.Snapshot, s sink) {
			for call, d := range m.Calls {
				s.distribution(d, call)
			}
		}},
}

// usersByStreams has one label value for all numbers above the largest limit, which only
// other programs can have written.
func usersByStreams(m *stats.Snapshot, s sink) {
	for n, users := range m.Users {
		label := strconv.Itoa(n)
		if n > policy.MaxLimit {
			label = "more"
		}
		s.value(float64(users), label)
	}
}

// streamsByRegion adds up the regions that have the same label value.
func streamsByRegion(m *stats.Snapshot, s sink) {
	regions := make(map[string]int, len(m.Regions))
	for name, n := range m.Regions {
		regions[labelValue(name)] += n
	}
	for name, n := range regions {
		s.value(float64(n), name)
	}
}

const maxLabel = 64 // bytes, the maximum of a region

// labelValue makes text valid as the value of a label. Programs other than nodes may
// write any region to etcd.
func labelValue(text string) string {
	text = strings.ToValidUTF8(text, "?")
	for len(text) > maxLabel {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}
