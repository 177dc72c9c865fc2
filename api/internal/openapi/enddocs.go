package openapi

import (
	"streamcount/access"
	"streamcount/api/apitype"
)

// EndStreams describes the operation of that name.
func EndStreams() Operation {
	return Operation{
		id: "end-streams", tag: tagStreams, summary: "End the streams of all users that fulfil conditions",
		traits: Traits{Action: access.EndAnyStreams},
		description: "For example when the rights of a title expire. The streams end with the reason `removed`. The call does not " +
			"end streams that start after it: first forbid them by a limit of 0 with the same conditions in the plans of the users. " +
			"With `dryRun` it ends nothing. With `\"complete\": false` streams that matched may still run, because the time of the call " +
			"was over, a shard did not answer, an outcome is unknown or `max` was reached: repeat the call, which is safe. " +
			"For callers that may end the streams of any user: API keys of scope `operator` and `all`.",
		request:  apitype.EndStreams{Where: apitype.Where{"content.id": {In: []string{"film-77"}}}},
		response: apitype.EndedStreams{Matched: 812, Ended: 812, Users: 790, Complete: true},
	}
}
