package api

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/playback"
	"streamcount/api/internal/problem"
	"streamcount/lease"
	"streamcount/lease/streamid"
	"streamcount/token"
)

// Tokens issues playback tokens.
type Tokens = playback.Issuer

// tokenKeys manages the keys of playback tokens that are in etcd. An error means that etcd did not
// respond.
type tokenKeys interface {
	Keys(ctx context.Context) ([]token.KeyInfo, error)
	Rotate(ctx context.Context, atOnce bool) ([]token.KeyInfo, error)
}

func (s *Server) tokenRoutes(a huma.API) {
	handle(a, "GET", "/api/v1/token-keys", openapi.TokenKeys(), s.listTokenKeys)
	handle(a, "POST", "/api/v1/token-keys/rotate", openapi.RotateTokenKey(), s.rotateTokenKey)
}

// tokenFormats is the query parameter of starts and heartbeats. The direct calls read it themselves.
type tokenFormats []string

// Schema is the parameter as huma documents it.
func (tokenFormats) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString, Enum: []any{"jwt", "akamai", "secure-link", "cloudfront"}}}
}

// playbackToken returns the token for a stream; nil if none can be made. Formats that cannot be made are
// left out, because a heartbeat has succeeded in any case.
func (s *Server) playbackToken(ctx context.Context, r playback.Requested, user string, st lease.Stream, start bool) *apitype.Token {
	if r == 0 {
		return nil
	}
	now := time.Now()
	p := token.Playback{User: user, Stream: streamid.Handle(st.ID), Content: st.Content.ID, Start: start}
	if p.LeaseEnd = now.Add(st.TTL); !st.ExpiresAt.IsZero() { // a degraded stream has no ExpiresAt
		p.LeaseEnd = now.Add(st.ExpiresAt.Sub(now)) // by the clock of now: the clock may have been set
	}
	t, err := s.cfg.Tokens.Issue(r, p, now)
	if err != nil {
		s.log.DebugContext(ctx, "a playback token cannot be made", "err", err)
	}
	return t
}

// tokenKeys returns the manager of the keys, or a problem.
func (s *Server) tokenKeys() (tokenKeys, error) {
	if k := s.backend.Load().TokenKeys; k != nil {
		return k, nil
	}
	return nil, problem.Invalid.New("This service has no keys of playback tokens in etcd: it issues no tokens, or signs them with " +
		"the key of token-key-file, which is replaced in that file.")
}

func (s *Server) listTokenKeys(ctx context.Context, _ *struct{}) (*reply[apitype.TokenKeys], error) {
	k, err := s.tokenKeys()
	if err != nil {
		return nil, err
	}
	infos, err := k.Keys(ctx)
	return tokenKeysReply(infos, err)
}

type rotateInput struct{ Body *apitype.RotateTokenKey }

func (s *Server) rotateTokenKey(ctx context.Context, in *rotateInput) (*reply[apitype.TokenKeys], error) {
	k, err := s.tokenKeys()
	if err != nil {
		return nil, err
	}
	atOnce := in.Body != nil && in.Body.Now
	infos, err := k.Rotate(ctx, atOnce)
	out, err := tokenKeysReply(infos, err)
	if attrs, ok := outcomeAttrs(err); ok {
		s.audit(ctx, "rotate token key", "", append(attrs, slog.Bool("now", atOnce))...)
	}
	return out, err
}

func tokenKeysReply(infos []token.KeyInfo, err error) (*reply[apitype.TokenKeys], error) {
	if err != nil {
		return nil, fmt.Errorf("%w: %w", lease.ErrUnavailable, err)
	}
	out := apitype.TokenKeys{Keys: []apitype.TokenKey{}}
	for _, i := range infos {
		out.Keys = append(out.Keys, apitype.TokenKey{
			KID: i.ID, Algorithm: string(i.Algorithm), State: string(i.State),
			CreatedAt: apitype.At(i.Created), SignsFrom: apitype.At(i.From), RemovedAt: apitype.At(i.Until),
		})
	}
	return &reply[apitype.TokenKeys]{out}, nil
}
