package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"
)

// A verifier checks viewers' tokens.
type verifier struct {
	issuers   atomic.Pointer[issuerSet]
	parser    *jwt.Parser
	known     *lru.Cache[[sha256.Size]byte, verified]
	unknown   counts        // of tokens that belong to no configured issuer
	waiting   chan struct{} // an element for each token that waits for keys
	changed   chan struct{} // receives after a change of the issuers
	transport http.RoundTripper
	log       *slog.Logger
	made      time.Time
	logged    atomic.Int64 // last log line about an unknown issuer, in nanoseconds after made
}

// verified is the cached result of a token that was checked, so that heartbeats need not
// check it again. A change of the configuration or of the keys invalidates it.
type verified struct {
	caller   Caller
	until    time.Time
	issuers  *issuerSet
	provider *provider
	alg      string
	keys     any
	texts    map[string]string // for [Token.Text]; nil unless VerifyToken verified the token
}

const (
	maxToken   = 8 << 10 // bytes
	knownFor   = time.Minute
	knownCount = 1 << 15
)

// asymmetric are the algorithms of tokens that are signed with a published key.
var asymmetric = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
}

// ed25519Method is EdDSA under the name that RFC 9864 gives it.
type ed25519Method struct{ *jwt.SigningMethodEd25519 }

func (ed25519Method) Alg() string { return "Ed25519" }

func init() {
	jwt.RegisterSigningMethod("Ed25519", func() jwt.SigningMethod { return ed25519Method{jwt.SigningMethodEdDSA} })
}

func newVerifier(cfg Config, log *slog.Logger) (*verifier, error) {
	known, err := lru.New[[sha256.Size]byte, verified](knownCount)
	if err != nil {
		return nil, err
	}
	v := &verifier{
		known: known, unknown: newCounts(), waiting: make(chan struct{}, maxWaiting), changed: make(chan struct{}, 1),
		transport: cfg.transport, log: log, made: time.Now(),
		// Claims are checked later, because their requirements depend on the issuer.
		parser: jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding(), jwt.WithJSONNumber(),
			jwt.WithValidMethods(append(slices.Clone(asymmetric), secretAlgorithm))),
	}
	v.logged.Store(-int64(time.Hour))
	v.issuers.Store(&issuerSet{})
	return v, nil
}

// verify returns the viewer of a token, and if withTexts is set the texts of its claims.
func (v *verifier) verify(ctx context.Context, token string, withTexts bool) (verified, error) {
	issuers, sum, now := v.issuers.Load(), sha256.Sum256([]byte(token)), time.Now()
	if k, ok := v.known.Get(sum); ok && k.issuers == issuers && now.Before(k.until) && k.provider.version(k.alg) == k.keys &&
		(!withTexts || k.texts != nil) {
		return k, nil
	}
	k := verified{issuers: issuers}
	claims := jwt.MapClaims{}
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (keys any, err error) {
		if k.provider, err = issuers.providerOf(claims); err != nil {
			return nil, err
		}
		if err := k.provider.checkHeader(t.Header); err != nil {
			return nil, err
		}
		k.alg = t.Method.Alg()
		keys, k.keys, err = k.provider.keysFor(ctx, t)
		return keys, err
	})
	if err == nil {
		k.caller, k.until, err = k.provider.callerNow(claims, now)
	}
	if err != nil {
		return verified{}, v.rejected(issuers, k.provider, claims, tokenError(token, err, k.keys != nil))
	}
	if withTexts {
		k.texts = textsOf(claims)
	}
	v.known.Add(sum, k)
	return k, nil
}

// rejected counts a rejection. It logs rejections because of an unknown issuer at a limited rate.
func (v *verifier) rejected(issuers *issuerSet, p *provider, claims jwt.MapClaims, err error) error {
	if p != nil {
		p.rejected.add(err)
		return err
	}
	v.unknown.add(err)
	now, last := int64(time.Since(v.made)), v.logged.Load()
	if ReasonOf(err) == ReasonIssuer && now-last >= int64(time.Minute) && v.logged.CompareAndSwap(last, now) {
		iss, _ := claims["iss"].(string) // not logged, because it can be any text
		v.log.Warn("a token of an issuer that is not configured was rejected; this is logged once a minute",
			"same_but_for_the_last_slash", issuers.slashHint(iss))
	}
	return err
}

// providerOf returns the provider that the iss of a token names. The signature, checked
// with that provider's keys, proves it.
func (s *issuerSet) providerOf(claims jwt.MapClaims) (*provider, error) {
	iss, ok := claims["iss"].(string)
	switch p := s.byIss[iss]; {
	case claims["iss"] == nil:
		return nil, reject(ReasonIssuer, "its iss is missing")
	case !ok:
		return nil, reject(ReasonIssuer, "its iss is not text")
	case p != nil:
		return p, nil
	case s.slashHint(iss) != "":
		return nil, reject(ReasonIssuer, "its issuer is not one of those configured here: the last slash makes the difference")
	}
	return nil, reject(ReasonIssuer, "its issuer is not one of those configured here")
}

// version returns a value that changes when the keys for that algorithm change.
func (p *provider) version(alg string) any {
	if alg == secretAlgorithm {
		return p.secret.secret.Load()
	}
	return p.keys.current()
}

// keysFor returns the keys that t may be signed with, and their version.
func (p *provider) keysFor(ctx context.Context, t *jwt.Token) (keys, version any, err error) {
	alg := algorithmName(t.Method.Alg())
	if !p.allows(alg) {
		return nil, nil, reject(ReasonAlgorithm, "its algorithm is not allowed for its issuer")
	}
	if alg == secretAlgorithm {
		secret := p.secret.secret.Load()
		return *secret, secret, nil
	}
	kid, ok := t.Header["kid"].(string)
	if !ok && t.Header["kid"] != nil {
		return nil, nil, reject(ReasonMalformed, "its kid is not text")
	}
	set := p.keys.lookup(ctx, kid)
	if set == nil {
		return nil, nil, ErrUnavailable
	}
	x5t, _ := t.Header["x5t"].(string)
	chosen := set.choose(kid, x5t, alg, p.algorithms)
	switch {
	case !chosen.knownKid:
		return nil, nil, reject(ReasonKey, "its key is not one of its issuer's")
	case len(chosen.keys) == 0:
		return nil, nil, reject(ReasonAlgorithm, "its algorithm is not its key's")
	}
	candidates := jwt.VerificationKeySet{Keys: make([]jwt.VerificationKey, len(chosen.keys))}
	for i, k := range chosen.keys {
		candidates.Keys[i] = k.key
	}
	return candidates, set, nil
}

// callerNow checks the claims of a token whose signature is valid. It returns the viewer,
// and how long the result may be cached.
func (p *provider) callerNow(claims jwt.MapClaims, now time.Time) (caller Caller, until time.Time, err error) {
	expires, err := p.checkTimes(claims, now)
	if err == nil {
		err = p.checkAudience(claims)
	}
	if err == nil {
		err = p.checkRequired(claims)
	}
	if err == nil {
		caller, err = p.callerOf(claims)
	}
	until = now.Add(knownFor)
	if e := expires.Add(p.leeway); e.Before(until) {
		until = e
	}
	return caller, until, err
}

// tokenError returns the reason why a token is rejected, without text of the library, which
// may repeat parts of the token. Without keysFound its signature was not checked.
func tokenError(token string, err error, keysFound bool) error {
	if errors.Is(err, ErrUnavailable) {
		return ErrUnavailable
	}
	if r, ok := errors.AsType[*rejection](err); ok {
		return r
	}
	switch {
	case strings.Count(token, ".") == 4:
		return reject(ReasonMalformed, "it is encrypted (a JWE): configure its issuer to sign tokens only")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return reject(ReasonMalformed, "it is not a JWT; some providers make opaque tokens unless they are asked for an audience")
	case keysFound:
		return reject(ReasonSignature, "its signature is wrong")
	}
	return reject(ReasonAlgorithm, "its algorithm is not supported here")
}
