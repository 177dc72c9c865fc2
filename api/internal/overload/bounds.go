package overload

import "net/http"

// A Bound is one limit on the work that a node accepts.
type Bound int

// The bounds. None means that the work is accepted. Package lease applies those from
// StartsOfUser on.
const (
	None Bound = iota
	Connections
	ConnectionsPerAddress
	Bodies
	BodiesPerAddress
	LargeBodies
	LargeBodiesPerAddress
	RequestsInFlight
	RequestsPerAddress
	ConcurrentStarts
	ConcurrentReads
	RatePerUser
	RatePerAddress
	RatePerKey
	LinearizableLists
	EventStreams
	EventStreamsPerCaller
	PendingResponses
	StartsOfUser
	QueuedWrites
	QueuedRenewals
	EtcdSilence
	numBounds
)

// A Row describes a bound.
type Row struct {
	Name    string // in metrics and the documentation
	Limits  string // what is limited
	Max     int    // the default; of a derived bound the largest value
	Unit    string // of Max, where Limits does not name it
	Setting string // the setting that changes Max; "" if there is none
	Status  int    // of the rejection; 0 if no response is possible
	Detail  string // of the rejection, for the caller; "" if there is no response
	Effect  string // what happens at the limit, if no request is rejected
	Reason  string // why the bound exists
}

// Table describes all bounds.
var Table = [numBounds]Row{
	Connections: {
		Name: "max-connections", Limits: "open connections", Max: 20_000, Setting: "max-connections",
		Effect: "closes the oldest connection without a request in progress",
		Reason: "each connection costs memory and a file descriptor",
	},
	ConnectionsPerAddress: {
		Name: "max-connections-per-address", Limits: "open connections of one client address", Max: 2_000,
		Setting: "max-connections-per-address", Effect: "closes the client's oldest connection without a request in progress",
		Reason: "one client cannot use all connections",
	},
	Bodies: {
		Name: "bodies", Limits: "request bodies that are arriving", Max: 4_096,
		Status: http.StatusServiceUnavailable, Detail: "The node is receiving the maximum number of request bodies.",
		Reason: "bodies that never arrive would use the memory of the node",
	},
	BodiesPerAddress: {
		Name: "bodies-per-address", Limits: "arriving bodies of one client address", Max: 256,
		Status: http.StatusServiceUnavailable, Detail: "The node is receiving the maximum number of request bodies of your address.",
		Reason: "one client cannot use all places of arriving bodies",
	},
	LargeBodies: {
		Name: "large-bodies", Limits: "bodies larger than 16 KiB, until they are handled", Max: 64,
		Status: http.StatusServiceUnavailable, Detail: "The node is handling the maximum number of large request bodies.",
		Reason: "each has a buffer of 512 KiB",
	},
	LargeBodiesPerAddress: {
		Name: "large-bodies-per-address", Limits: "large bodies of one client address", Max: 8,
		Status: http.StatusServiceUnavailable, Detail: "The node is handling the maximum number of large request bodies of your address.",
		Reason: "one client cannot use all buffers",
	},
	RequestsInFlight: {
		Name: "in-flight", Limits: "requests in handlers; an eighth is reserved for heartbeats and stops", Max: 4_096,
		Status: http.StatusServiceUnavailable, Detail: "The node is handling the maximum number of requests.",
		Reason: "limits memory, and keeps capacity for the calls that keep or end streams",
	},
	RequestsPerAddress: {
		Name: "in-flight-per-address", Limits: "requests in handlers of one client address", Max: 512,
		Status: http.StatusServiceUnavailable, Detail: "The node is handling the maximum number of requests of your address.",
		Reason: "one client cannot use all places; applies once an eighth of them is in use",
	},
	ConcurrentStarts: {
		Name: "concurrent-starts", Limits: "starts in handlers; adapts to their latency", Max: 4_096,
		Status: http.StatusServiceUnavailable, Detail: "The node is overloaded.",
		Reason: "starts beyond the capacity of the node or of etcd would delay heartbeats until streams expire",
	},
	ConcurrentReads: {
		Name: "concurrent-reads", Limits: "lists and statistics in handlers; adapts to their latency", Max: 4_096,
		Status: http.StatusServiceUnavailable, Detail: "The node is overloaded.",
		Reason: "as for starts; separate, so that reads do not displace starts",
	},
	RatePerUser: {
		Name: "rate-per-user", Limits: "starts, stops and removals of one user", Max: 50, Unit: "/s", Setting: "rate-per-user",
		Status: http.StatusTooManyRequests, Detail: "There are too many requests for this user.",
		Reason: "a faulty client cannot make the writes of one user contend",
	},
	RatePerAddress: {
		Name: "rate-per-address", Limits: "requests of one client address, except successful heartbeats", Unit: "/s",
		Setting: "rate-per-address", Status: http.StatusTooManyRequests, Detail: "There are too many requests from this address.",
		Reason: "for nodes that are open to the internet; off by default because many viewers may share an address",
	},
	RatePerKey: {
		Name: "rate-per-key", Limits: "requests with one API key", Unit: "/s", Setting: "rate-per-key",
		Status: http.StatusTooManyRequests, Detail: "There are too many requests with this API key.",
		Reason: "divides a node between back ends; off by default",
	},
	LinearizableLists: {
		Name: "linearizable-lists", Limits: "lists of one user with consistency=linearizable", Max: 10, Unit: "/s",
		Status: http.StatusTooManyRequests, Detail: "There are too many linearizable lists of this user.",
		Reason: "each costs a consensus round of etcd",
	},
	EventStreams: {
		Name: "event-streams", Limits: "event streams", Max: 256,
		Status: http.StatusServiceUnavailable, Detail: "The node is sending events to the maximum number of clients. Another node may have room.",
		Reason: "each event is encoded and sent once for each stream",
	},
	EventStreamsPerCaller: {
		Name: "event-streams-per-caller", Limits: "event streams of one API key or client address", Max: 32,
		Status: http.StatusServiceUnavailable,
		Detail: "The node is sending events to the maximum number of your clients. Another node may have room.",
		Reason: "one caller cannot use all event streams",
	},
	PendingResponses: {
		Name: "pending-responses", Limits: "HTTP/2 responses that their clients have not read", Max: 2_048,
		Effect: "resets the stream of a response that is not read within 100 ms",
		Reason: "a client that does not read would hold a goroutine for each response until the write timeout",
	},
	StartsOfUser: {
		Name: "starts-of-user", Limits: "starts of one user that wait for each other", Max: 128,
		Effect: "503 for further starts of the user",
		Reason: "starts of one user are decided in turn; others beyond this number would time out in the queue",
	},
	QueuedWrites: {
		Name: "queued-writes", Limits: "writes that wait for a batch; starts may use half", Max: 8_192,
		Effect: "503 for further starts, stops and removals",
		Reason: "limits the memory and the latency of group commit; the concurrency limit rejects starts earlier",
	},
	QueuedRenewals: {
		Name: "queued-renewals", Limits: "renewals that wait for one keep-alive stream", Max: 65_536,
		Effect: "heartbeats are answered with `degraded`",
		Reason: "limits the memory used while etcd delays renewals",
	},
	EtcdSilence: {
		Name: "etcd-silence", Limits: "time without a response from etcd", Max: 3, Unit: " s",
		Effect: "calls that need etcd fail at once (circuit breaker)",
		Reason: "calls that wait for an unavailable etcd would use all slots",
	},
}

// Row returns the description of b.
func (b Bound) Row() *Row { return &Table[b] }

// Max returns the default maximum of b.
func (b Bound) Max() int { return Table[b].Max }

func (b Bound) String() string { return Table[b].Name }
