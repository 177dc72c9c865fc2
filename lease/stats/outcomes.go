package stats

// Each outcome is a constant with its name in the table below it. The names are the keys
// of the maps in [Snapshot], and the values of labels in metrics.

// A StartOutcome is how a start ended.
type StartOutcome int

// The values of StartOutcome.
const (
	StartAdmitted StartOutcome = iota
	StartTookOver
	StartEvicted
	StartProvisional
	StartRefused
	StartUnavailable
	StartAbandoned
	StartInvalid
)

var startOutcomes = []string{
	StartAdmitted:    "admitted",
	StartTookOver:    "took-over",
	StartEvicted:     "evicted",
	StartProvisional: "provisional",
	StartRefused:     "refused",
	StartUnavailable: "unavailable",
	StartAbandoned:   "abandoned",
	StartInvalid:     "invalid",
}

// A HeartbeatOutcome is how a heartbeat was answered.
type HeartbeatOutcome int

// The values of HeartbeatOutcome.
const (
	HeartbeatAlive HeartbeatOutcome = iota
	HeartbeatDegraded
	HeartbeatEnded
	HeartbeatInvalid
)

var heartbeatOutcomes = []string{
	HeartbeatAlive: "alive", HeartbeatDegraded: "degraded", HeartbeatEnded: "ended", HeartbeatInvalid: "invalid",
}

// A StopOutcome is how a stop or a removal ended.
type StopOutcome int

// The values of StopOutcome.
const (
	StopDone StopOutcome = iota
	StopGone
	StopUnavailable
	StopInvalid
)

var stopOutcomes = []string{
	StopDone: "stopped", StopGone: "gone", StopUnavailable: "unavailable", StopInvalid: "invalid",
}

// A SyncOutcome is what became of a provisional stream.
type SyncOutcome int

// The values of SyncOutcome.
const (
	SyncWritten SyncOutcome = iota
	SyncRejected
	SyncExpired
)

var syncOutcomes = []string{SyncWritten: "written", SyncRejected: "rejected", SyncExpired: "expired"}

const (
	renewCoalesced = iota
	renewDone
	renewGone
	renewFailed
	renewStalled
)

var renewOutcomes = []string{
	renewCoalesced: "coalesced", renewDone: "renewed", renewGone: "gone", renewFailed: "failed", renewStalled: "stalled",
}

const (
	callRead = iota
	callWrite
	callGrant
	callRevoke
	callTimeToLive
	callRenew
)

var etcdCalls = []string{
	callRead: "read", callWrite: "write", callGrant: "grant", callRevoke: "revoke",
	callTimeToLive: "time-to-live", callRenew: "renew",
}
