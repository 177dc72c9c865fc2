package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"streamcount/api/apitype"
)

// tokenQuery returns the query by which a start or heartbeat requests playback tokens.
func (c *Client) tokenQuery() string {
	if len(c.cfg.Tokens) == 0 {
		return ""
	}
	return "?token=" + url.QueryEscape(strings.Join(c.cfg.Tokens, ","))
}

// reportToken calls Config.OnToken, unless there is no token.
func (c *Client) reportToken(user string, t *apitype.Token) {
	if t != nil && c.cfg.OnToken != nil {
		c.cfg.OnToken(user, *t)
	}
}

// TokenKeys returns the keys of playback tokens, without the keys themselves.
func (c *Client) TokenKeys(ctx context.Context) (apitype.TokenKeys, error) {
	return get[apitype.TokenKeys](ctx, c, http.MethodGet, "/api/v1/token-keys", nil, "list the keys of playback tokens")
}

// RotateTokenKey creates the next key of playback tokens. Verifiers can fetch it for an hour before it
// signs; with now, for 20 seconds, until all nodes have published it. The call is safe to repeat.
func (c *Client) RotateTokenKey(ctx context.Context, now bool) (apitype.TokenKeys, error) {
	return get[apitype.TokenKeys](ctx, c, http.MethodPost, "/api/v1/token-keys/rotate", apitype.RotateTokenKey{Now: now},
		"rotate the key of playback tokens")
}
