package apitype

// The types of events.
const (
	EventStart   = "start"
	EventStop    = "stop"
	EventRefusal = "refusal"
	EventExpiry  = "expiry"
	EventGap     = "gap" // events were lost: read the statistics again
)

// An Event is a change of a user's streams, or a gap in the events.
type Event struct {
	Type     string   `json:"type" enum:"start,stop,refusal,expiry,gap" doc:"What happened. A gap means that events were lost: read the statistics again."`
	At       *Time    `json:"at,omitempty" format:"date-time" doc:"When the responding node received it."`
	Revision int64    `json:"revision,omitempty" doc:"Its etcd revision, on the user's shard."`
	Shard    string   `json:"shard,omitempty" doc:"The user's shard, if there are several."`
	UserID   string   `json:"userId,omitempty" example:"maya"`
	Streams  int      `json:"streams" doc:"How many streams the user had then."`
	Limit    int      `json:"limit" doc:"How many the user may have."`
	Limits   []string `json:"limits,omitempty" doc:"Of a plan with several limits: the names of the limits that refused the start, or for which the stream was evicted."`
	Stream   *Stream  `json:"stream,omitempty" doc:"The stream that started or ended."`
	Reason   string   `json:"reason,omitempty" doc:"Why a stream stopped: stopped, replaced, evicted, removed, or ended if the reason is unknown."`
	By       *By      `json:"by,omitempty" doc:"The stream that took the place of the ended one, if known."`
	Node     string   `json:"node,omitempty" doc:"The node that refused the start. Only that node sends the event."`
	Detail   string   `json:"detail,omitempty" doc:"Why there is a gap."`
}
