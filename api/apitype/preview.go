package apitype

// MaxTryStreams is the maximum number of running streams in a Try.
const MaxTryStreams = 60

// A Try is a start to try under a plan, while other streams run. Nothing is stored.
type Try struct {
	Plan    PlanRule   `json:"plan"`
	Streams []TryStart `json:"streams,omitempty" nullable:"false" maxItems:"60" doc:"The starts of the streams that run, oldest first. Their replaces and onLimit have no effect."`
	Start   TryStart   `json:"start,omitempty" doc:"The start to try. Its replaces are indexes in streams, as text: \"0\" is the oldest stream."`
}

// A TryStart is a start in a Try.
type TryStart struct {
	Start
	Region string `json:"region,omitempty" maxLength:"200" doc:"The region of the node, which a real start does not state."`
}

// A TryResult is the decision on a Try.
type TryResult struct {
	Admitted bool            `json:"admitted" doc:"Whether the start is admitted."`
	Limits   []RefusingLimit `json:"limits" nullable:"false" doc:"The limits that reject the start."`
	Ends     []int           `json:"ends" nullable:"false" doc:"The indexes of the streams that the start ends: its own session, those in replaces, and evicted ones."`
	Missing  []string        `json:"missing,omitempty" doc:"The attributes that the plan requires and the start does not state. A real start gets 422 that names them."`
	Observed []string        `json:"observed,omitempty" doc:"The limits that only observe, and that do not hold with the new stream."`
	Warnings []string        `json:"warnings,omitempty" doc:"What is probably not intended in the plan."`
}

// An Explanation is which limits apply to a user, and what the user's streams count for.
type Explanation struct {
	Plan   string       `json:"plan" doc:"The name of the user's plan." example:"family"`
	From   string       `json:"from" doc:"Where the plan comes from: override (set for the user), start (stated by the start, or the token, of the user's newest stream), default (the plan of that name), or configuration (the limit of the node, if there is no default plan)." example:"override"`
	Until  *Time        `json:"until,omitempty" format:"date-time" doc:"When the limit, plan or limits that are set for the user end, if they end."`
	Limits []LimitUsage `json:"limits" nullable:"false" doc:"The limits. The first is total, that of the plan itself."`
}

// A LimitUsage is what the streams of a user count for toward a limit.
type LimitUsage struct {
	Name       string  `json:"name" example:"tv"`
	Limit      int     `json:"limit" example:"1"`
	Counted    int     `json:"counted" doc:"What the streams count for." example:"1"`
	Left       int     `json:"left" doc:"How many more the limit admits." example:"0"`
	Count      string  `json:"count,omitempty" doc:"What the limit counts, if not streams."`
	Per        string  `json:"per,omitempty" doc:"The attribute of which each value has the limit separately. There is an entry for each value that a stream has."`
	Value      *string `json:"value,omitempty" doc:"The value of that attribute; empty for streams without it. Left out if no stream counts for the limit."`
	MoreValues int     `json:"moreValues,omitempty" doc:"How many further values of the attribute have streams. Only the 20 that count most have entries; the last of these has this member."`
	From       string  `json:"from,omitempty" doc:"Where the number comes from, if the plan does not state it: override or start."`
	Observe    bool    `json:"observe,omitempty" doc:"The limit rejects no start."`
}
