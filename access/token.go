package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"
)

// TokenConfig says which viewers' tokens are believed. Exactly one of the sources
// of keys is set.
type TokenConfig struct {
	JWKSURL    string // https, or http on this machine
	JWKSFile   string
	SecretFile string // of HS256; 32 bytes or more
	Issuer     string // the iss that tokens must have
	Audience   string // and one of their aud
	// PlanClaim and LimitClaim name claims that say what the user's plan or limit
	// is; "" for none.
	PlanClaim, LimitClaim string
	Leeway                time.Duration // for clocks that differ
}

// verifier checks viewers' tokens.
type verifier struct {
	cfg    TokenConfig
	parser *jwt.Parser
	keys   keySource
	known  *lru.Cache[[sha256.Size]byte, verified]
}

// keySource has the keys for a token with that key id, and something that is
// another when they change. It returns nil while there are none.
type keySource func(ctx context.Context, kid string) (find jwt.Keyfunc, set any)

// verified is a token that was checked, so that each heartbeat need not check it
// again.
type verified struct {
	caller Caller
	until  time.Time
	set    any // the keys that it was checked with
}

const (
	maxToken   = 8 << 10 // bytes
	knownFor   = time.Minute
	knownCount = 1 << 15
)

var userPattern = regexp.MustCompile(`^[A-Za-z0-9._~@:|+=-]{1,128}$`)

func newVerifier(cfg TokenConfig, methods []string, keys keySource) (*verifier, error) {
	known, err := lru.New[[sha256.Size]byte, verified](knownCount)
	if err != nil {
		return nil, err
	}
	return &verifier{
		cfg: cfg, keys: keys, known: known,
		parser: jwt.NewParser(
			jwt.WithValidMethods(methods), jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(cfg.Leeway), jwt.WithStrictDecoding(),
		),
	}, nil
}

// verify returns the viewer that a token speaks for.
func (v *verifier) verify(ctx context.Context, token string) (Caller, error) {
	sum, now := sha256.Sum256([]byte(token)), time.Now()
	if k, ok := v.known.Get(sum); ok && now.Before(k.until) {
		if _, set := v.keys(ctx, ""); set == k.set {
			return k.caller, nil
		}
	}
	var set any
	claims := jwt.MapClaims{}
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if _, critical := t.Header["crit"]; critical {
			return nil, errors.New("a critical header that is not understood")
		}
		kid, _ := t.Header["kid"].(string)
		find, of := v.keys(ctx, kid)
		if find == nil {
			return nil, ErrUnavailable
		}
		set = of
		return find(t)
	})
	if err != nil {
		return Caller{}, credentialError(err)
	}
	caller, err := v.callerOf(claims)
	if err != nil {
		return Caller{}, err
	}
	expires, err := claims.GetExpirationTime()
	if err != nil {
		return Caller{}, credentialError(err)
	}
	until := now.Add(knownFor)
	if e := expires.Add(v.cfg.Leeway); e.Before(until) {
		until = e
	}
	v.known.Add(sum, verified{caller, until, set})
	return caller, nil
}

func (v *verifier) callerOf(claims jwt.MapClaims) (Caller, error) {
	sub, err := claims.GetSubject()
	if err != nil || !userPattern.MatchString(sub) {
		return Caller{}, fmt.Errorf("%w: its sub is not a user id", ErrCredential)
	}
	c := Caller{Kind: Viewer, Name: sub}
	if v.cfg.PlanClaim != "" && claims[v.cfg.PlanClaim] != nil {
		plan, ok := claims[v.cfg.PlanClaim].(string)
		if !ok {
			return Caller{}, fmt.Errorf("%w: its claim for the plan is no text", ErrCredential)
		}
		c.Plan = plan
	}
	if v.cfg.LimitClaim != "" && claims[v.cfg.LimitClaim] != nil {
		n, ok := claims[v.cfg.LimitClaim].(float64)
		limit := int(n)
		if !ok || n < 0 || n > 1e6 || float64(limit) != n {
			return Caller{}, fmt.Errorf("%w: its claim for the limit is no whole number", ErrCredential)
		}
		c.Limit = &limit
	}
	return c, nil
}

// credentialError says in our own words why a token is refused: those of the
// libraries may repeat parts of it.
func credentialError(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return ErrUnavailable
	}
	for _, known := range []struct {
		is   error
		text string
	}{
		{jwt.ErrTokenExpired, "it has expired"},
		{jwt.ErrTokenNotValidYet, "it is not valid yet"},
		{jwt.ErrTokenUsedBeforeIssued, "it was issued in the future"},
		{jwt.ErrTokenInvalidIssuer, "it has another issuer"},
		{jwt.ErrTokenInvalidAudience, "it is for another audience"},
		{jwt.ErrTokenRequiredClaimMissing, "a claim is missing; it needs sub, iss, aud and exp"},
		{jwt.ErrTokenMalformed, "it is malformed"},
	} {
		if errors.Is(err, known.is) {
			return fmt.Errorf("%w: %s", ErrCredential, known.text)
		}
	}
	return fmt.Errorf("%w: it is not signed by a key that is trusted here", ErrCredential)
}

var asymmetric = []string{"RS256", "ES256", "EdDSA"}

// secretKeys is the source of one shared secret.
func secretKeys(secret *atomic.Pointer[[]byte]) keySource {
	return func(context.Context, string) (jwt.Keyfunc, any) {
		now := secret.Load()
		return func(*jwt.Token) (any, error) { return *now, nil }, now
	}
}

// setKeys is the source of a key set that changes.
func setKeys(current func(ctx context.Context, kid string) *keyset) keySource {
	return func(ctx context.Context, kid string) (jwt.Keyfunc, any) {
		s := current(ctx, kid)
		if s == nil {
			return nil, nil
		}
		return s.keys.KeyfuncCtx(ctx), s
	}
}
