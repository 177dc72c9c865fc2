package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"streamcount/api/apitype"
)

// Stats returns the totals of the service, as the node that answers knows them.
func (c *Client) Stats(ctx context.Context) (apitype.Stats, error) {
	return get[apitype.Stats](ctx, c, http.MethodGet, "/api/v1/stats", nil, "read statistics")
}

// History returns the totals of up to an hour, as the node that answers noted them.
func (c *Client) History(ctx context.Context) (apitype.History, error) {
	return get[apitype.History](ctx, c, http.MethodGet, "/api/v1/stats/history", nil, "read history")
}

// Concurrency returns how many streams users have had at once today.
func (c *Client) Concurrency(ctx context.Context) (apitype.Concurrency, error) {
	return get[apitype.Concurrency](ctx, c, http.MethodGet, "/api/v1/stats/concurrency", nil, "read concurrency")
}

// BusiestUsers returns the users with the most streams, most of them at most, or
// as many as the service gives unasked if that is 0. With a prefix they are those
// whose ids begin so.
func (c *Client) BusiestUsers(ctx context.Context, prefix string, most int) (apitype.BusiestUsers, error) {
	query := url.Values{}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	if most != 0 {
		query.Set("most", strconv.Itoa(most))
	}
	path := "/api/v1/streams/users"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return get[apitype.BusiestUsers](ctx, c, http.MethodGet, path, nil, "list the busiest users")
}
