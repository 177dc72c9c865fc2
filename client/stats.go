package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"streamcount/api/apitype"
)

// Stats returns the totals of the service from the node that answers.
func (c *Client) Stats(ctx context.Context) (apitype.Stats, error) {
	return get[apitype.Stats](ctx, c, http.MethodGet, "/api/v1/stats", nil, "read statistics")
}

// History returns the samples of up to an hour that the node that answers took.
func (c *Client) History(ctx context.Context) (apitype.History, error) {
	return get[apitype.History](ctx, c, http.MethodGet, "/api/v1/stats/history", nil, "read history")
}

// Concurrency returns how many streams users had at the same time today.
func (c *Client) Concurrency(ctx context.Context) (apitype.Concurrency, error) {
	return get[apitype.Concurrency](ctx, c, http.MethodGet, "/api/v1/stats/concurrency", nil, "read concurrency")
}

// TopUsers returns the n users with the most streams, or the service's default number if n is
// 0. With a prefix it returns only users whose ids begin with it.
func (c *Client) TopUsers(ctx context.Context, prefix string, n int) (apitype.TopUsers, error) {
	query := url.Values{}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	if n != 0 {
		query.Set("max", strconv.Itoa(n))
	}
	path := "/api/v1/streams/users"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return get[apitype.TopUsers](ctx, c, http.MethodGet, path, nil, "list the users with the most streams")
}
