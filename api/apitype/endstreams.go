package apitype

// EndStreams is the body of a call that ends the streams of all users that fulfil conditions.
type EndStreams struct {
	Where  Where `json:"where" doc:"The conditions, at least one. A stream ends if it fulfils all of them."`
	DryRun bool  `json:"dryRun,omitempty" doc:"End nothing, and answer with what would end."`
	Max    int   `json:"max,omitempty" minimum:"0" doc:"The maximum number of streams to end; 0 for no maximum." example:"1000"`
}

// EndedStreams is the answer to [EndStreams].
type EndedStreams struct {
	Matched  int             `json:"matched" doc:"Streams that fulfilled the conditions when the call began." example:"812"`
	Ended    int             `json:"ended" doc:"Streams that this call has ended, as etcd has confirmed." example:"812"`
	Users    int             `json:"users" doc:"Users of the matched streams." example:"790"`
	DryRun   bool            `json:"dryRun" doc:"Nothing was ended."`
	Complete bool            `json:"complete" doc:"None of the matched streams still runs; for a dry run, all streams were compared. If it is false, repeat the call."`
	Sample   []MatchedStream `json:"sample,omitempty" doc:"Some of the matched streams, up to 20; for a dry run only."`
}

// A MatchedStream is a stream that fulfils conditions.
type MatchedStream struct {
	UserID    string   `json:"userId"`
	ID        string   `json:"id"`
	StartedAt *Time    `json:"startedAt,omitempty"`
	Region    string   `json:"region,omitempty"`
	Content   *Content `json:"content,omitempty"`
}
