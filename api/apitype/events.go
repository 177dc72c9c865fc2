package apitype

// The types of events.
const (
	EventStart   = "start"
	EventStop    = "stop"
	EventRefusal = "refusal"
	EventExpiry  = "expiry"
	EventGap     = "gap" // events were missed: look again at the statistics
)

// An Event is something that happened to a user's streams, or a gap in what is
// told of that.
type Event struct {
	Type     string  `json:"type" enum:"start,stop,refusal,expiry,gap" doc:"What happened. A gap tells that events were missed: look again at the statistics."`
	At       *Time   `json:"at,omitempty" format:"date-time" doc:"When the node that answers learned of it."`
	Revision int64   `json:"revision,omitempty" doc:"The etcd revision of it, on the user's shard."`
	Shard    string  `json:"shard,omitempty" doc:"Where the user lives, if there are several."`
	UserID   string  `json:"userId,omitempty" example:"maya"`
	Streams  int     `json:"streams" doc:"How many streams the user had then."`
	Limit    int     `json:"limit" doc:"How many the user may have."`
	Stream   *Stream `json:"stream,omitempty" doc:"The stream that started or ended."`
	Reason   string  `json:"reason,omitempty" doc:"Why a stream stopped: stopped, replaced, evicted, removed, or ended where that is not known."`
	By       *By     `json:"by,omitempty" doc:"What took the stream's place, where known."`
	Node     string  `json:"node,omitempty" doc:"Who refused. Refusals are told only by the node that made them."`
	Detail   string  `json:"detail,omitempty" doc:"Why there is a gap."`
}
