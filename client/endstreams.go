package client

import (
	"context"
	"net/http"

	"streamcount/api/apitype"
)

// EndStreams ends the streams of all users that fulfil conditions. The request is sent once.
// The call is safe to repeat, and must be repeated while the answer is not Complete, unless
// Max was reached. After an error that is not a [*ProblemError] below 500, some of the streams
// may have ended.
func (c *Client) EndStreams(ctx context.Context, q apitype.EndStreams) (apitype.EndedStreams, error) {
	return get[apitype.EndedStreams](ctx, c, http.MethodPost, "/api/v1/streams/end", q, "end streams")
}
