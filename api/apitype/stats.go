package apitype

// Rates are how often things happen, a second, over the last ten seconds.
type Rates struct {
	Starts     float64 `json:"starts" doc:"On all nodes."`
	Stops      float64 `json:"stops" doc:"On all nodes."`
	Expiries   float64 `json:"expiries" doc:"On all nodes."`
	Refusals   float64 `json:"refusals" doc:"On this node."`
	Heartbeats float64 `json:"heartbeats" doc:"On this node; those of a batch count one by one."`
}

// Percentiles are how long a kind of call took. They are within 5 % of the truth.
type Percentiles struct {
	Count int64   `json:"count" doc:"How many calls."`
	P50   float64 `json:"p50Ms"`
	P95   float64 `json:"p95Ms"`
	P99   float64 `json:"p99Ms"`
}

// Latency is how long the calls took that this node answered in the last minute,
// from the request's arrival to the end of the answer.
type Latency struct {
	Start     Percentiles `json:"start"`
	Heartbeat Percentiles `json:"heartbeat"`
	Stop      Percentiles `json:"stop"`
}

// A NodeReport is a node and its last report.
type NodeReport struct {
	Node
	Address    string   `json:"address,omitempty" doc:"Where it listens."`
	Supports   []string `json:"supports,omitempty" doc:"The needs of rules that it supports, such as limits. Nodes of versions without plans with several limits have none."`
	Admitted   int64    `json:"admitted" doc:"Starts that it admitted since it started."`
	Refused    int64    `json:"refused" doc:"Starts that it refused since it started."`
	ReportedAt *Time    `json:"reportedAt,omitempty" format:"date-time" doc:"When it reported; nodes report every ten seconds."`
}

// An EtcdMember is one member of an etcd cluster.
type EtcdMember struct {
	Name    string   `json:"name"`
	Leader  bool     `json:"leader"`
	Version string   `json:"version,omitempty"`
	DBSize  int64    `json:"dbSizeBytes" doc:"The size of its database's file."`
	DBInUse int64    `json:"dbInUseBytes" doc:"How much of the file is in use; defragmentation frees the rest."`
	Lag     uint64   `json:"lag" doc:"How many raft entries it is behind the leader."`
	Alarms  []string `json:"alarms" nullable:"false" doc:"Such as NOSPACE."`
	Error   string   `json:"error,omitempty" doc:"Why its state is unknown."`
}

// A History is the totals of a node, recorded every few seconds.
type History struct {
	EverySeconds int      `json:"everySeconds" example:"10"`
	Samples      []Sample `json:"samples" nullable:"false" doc:"Up to an hour of them, oldest first."`
}

// A Sample is the totals at one time, and how much happened since the sample before.
type Sample struct {
	At           *Time          `json:"at,omitempty" format:"date-time"`
	Streams      int            `json:"streams"`
	Users        int            `json:"users"`
	UsersAtLimit int            `json:"usersAtLimit"`
	Starts       int64          `json:"starts" doc:"How many since the previous sample, on all nodes."`
	Stops        int64          `json:"stops" doc:"The same."`
	Expiries     int64          `json:"expiries" doc:"The same."`
	Refusals     int64          `json:"refusals" doc:"The same, on this node."`
	Regions      map[string]int `json:"regions" nullable:"false" doc:"Streams by region. Of many regions those with few streams are added up under \"other\"."`
}

// Concurrency is how many streams users have had at once since the beginning of the day
// (UTC), or since the start of the responding node, if that is later.
type Concurrency struct {
	Since   *Time          `json:"since,omitempty" format:"date-time"`
	Reached []ReachedCount `json:"reached" nullable:"false" doc:"For each number of streams, how many users had so many at once, or more."`
	Refused []RefusedCount `json:"refused" nullable:"false" doc:"Refusals of this node by the limit that was in force."`
	Partial bool           `json:"partial,omitempty" doc:"There were more users than the node can track: later ones are left out."`
}

// A ReachedCount is how many users had a number of streams at once, or more.
type ReachedCount struct {
	Streams int `json:"streams" example:"1"`
	Users   int `json:"users" example:"120"`
}

// A RefusedCount is how many users were refused at a limit.
type RefusedCount struct {
	Name   string `json:"name,omitempty" doc:"The name of the limit, if the plan has several. A start that several limits refuse counts for each of them."`
	Limit  int    `json:"limit" example:"3"`
	Users  int    `json:"users" doc:"How many users."`
	Starts int64  `json:"starts" doc:"How many of their starts."`
}

// TopUsers are the users with the most streams.
type TopUsers struct {
	Users []TopUser `json:"users" nullable:"false" doc:"Ordered by the number of streams, then by name."`
	More  bool      `json:"more" doc:"There are more users."`
}

// A TopUser is a user and how many streams they have.
type TopUser struct {
	UserID  string `json:"userId" example:"maya"`
	Streams int    `json:"streams"`
	Limit   int    `json:"limit"`
}
