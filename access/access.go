package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/internal/follow"
)

var (
	// ErrCredential means that a credential is not good. Its text says why, and
	// repeats no part of it.
	ErrCredential = errors.New("the credential is not accepted")
	// ErrUnavailable means that a credential cannot be checked now, and may be good.
	ErrUnavailable = errors.New("access: credentials cannot be checked at the moment")
)

// Config says which credentials there are.
type Config struct {
	KeysFile string // of API keys; "" for none
	Tokens   TokenConfig
	Log      *slog.Logger // nil means slog.Default()
}

// Configured reports whether there are any credentials.
func (c Config) Configured() bool { return c.KeysFile != "" || c.Tokens.configured() }

func (c TokenConfig) configured() bool {
	return c.JWKSURL != "" || c.JWKSFile != "" || c.SecretFile != ""
}

// An Authenticator finds out who calls. Make one with [New]; it is safe for
// concurrent use. [Authenticator.Run] keeps its keys up to date.
type Authenticator struct {
	log     *slog.Logger
	keys    atomic.Pointer[keyring] // nil if there are no API keys
	viewers *verifier               // nil if there are no tokens
	fetch   *fetcher                // nil unless keys come from a URL
	files   []*follow.Files
}

const filesEvery = 5 * time.Second

// New reads what cfg names. Keys that come from a URL are fetched by Run.
func New(cfg Config) (*Authenticator, error) {
	a := &Authenticator{log: cfg.Log}
	if a.log == nil {
		a.log = slog.Default()
	}
	if cfg.KeysFile != "" {
		err := a.follow(cfg.KeysFile, func(content []byte) error {
			ring, err := readKeys(content)
			if err == nil {
				a.keys.Store(&ring)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if cfg.Tokens.configured() {
		return a, a.useTokens(cfg.Tokens)
	}
	return a, nil
}

// follow reads a file now, and whenever it changes while Run runs.
func (a *Authenticator) follow(path string, load func(content []byte) error) error {
	f, err := follow.New(func(contents [][]byte) error {
		if err := load(contents[0]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}, path)
	a.files = append(a.files, f)
	return err
}

func (a *Authenticator) useTokens(cfg TokenConfig) (err error) {
	switch {
	case cfg.Issuer == "" || cfg.Audience == "":
		return errors.New("viewers' tokens need an issuer and an audience: without them a token made for another " +
			"service would be good here")
	case one(cfg.JWKSURL != "", cfg.JWKSFile != "", cfg.SecretFile != ""):
	default:
		return errors.New("viewers' tokens are checked by one source of keys: a JWKS URL, a JWKS file or a secret")
	}
	methods, keys := asymmetric, keySource(nil)
	switch {
	case cfg.JWKSURL != "":
		if a.fetch, err = newFetcher(cfg.JWKSURL, a.log); err != nil {
			return err
		}
		keys = setKeys(a.fetch.current)
	case cfg.JWKSFile != "":
		var set atomic.Pointer[keyset]
		err = a.follow(cfg.JWKSFile, func(content []byte) error {
			read, err := readKeyset(content)
			if err == nil {
				set.Store(read)
			}
			return err
		})
		keys = setKeys(func(context.Context, string) *keyset { return set.Load() })
	default:
		var secret atomic.Pointer[[]byte]
		err = a.follow(cfg.SecretFile, func(content []byte) error {
			// One line end is an editor's; any other byte may be the secret's.
			s := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
			if len(s) < minSecret {
				return fmt.Errorf("a secret of %d bytes: want %d or more", len(s), minSecret)
			}
			secret.Store(&s)
			return nil
		})
		methods, keys = []string{"HS256"}, secretKeys(&secret)
	}
	if err != nil {
		return err
	}
	a.viewers, err = newVerifier(cfg, methods, keys)
	return err
}

const minSecret = 32 // bytes, as RFC 7518 has it for HS256

func one(set ...bool) bool {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n == 1
}

// Run keeps keys up to date until ctx ends.
func (a *Authenticator) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, f := range a.files {
		g.Go(func() error { return f.Run(ctx, filesEvery, a.log) })
	}
	if a.fetch != nil {
		g.Go(func() error { return a.fetch.run(ctx) })
	}
	return g.Wait()
}

// Authenticate returns who makes a request: [Anonymous] if it says nothing. The
// credential is in the one Authorization header, as a bearer token; nowhere else.
// Returns [ErrCredential] and [ErrUnavailable].
func (a *Authenticator) Authenticate(r *http.Request) (Caller, error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		return Caller{}, nil
	}
	scheme, credential, ok := strings.Cut(headers[0], " ")
	switch {
	case len(headers) > 1:
		return Caller{}, fmt.Errorf("%w: there is more than one Authorization header", ErrCredential)
	case !ok || !strings.EqualFold(scheme, "Bearer") || credential == "" || strings.ContainsAny(credential, " \t,"):
		return Caller{}, fmt.Errorf("%w: want the header as 'Authorization: Bearer CREDENTIAL'", ErrCredential)
	case len(credential) > maxToken:
		return Caller{}, fmt.Errorf("%w: it is longer than %d bytes", ErrCredential, maxToken)
	}
	ring := a.keys.Load()
	switch {
	case isKey(credential) && ring != nil:
		if caller, ok := ring.find(credential); ok {
			return caller, nil
		}
		return Caller{}, fmt.Errorf("%w: there is no such API key", ErrCredential)
	case a.viewers == nil || isKey(credential):
		return Caller{}, fmt.Errorf("%w: credentials of that kind are not configured here", ErrCredential)
	}
	return a.viewers.verify(r.Context(), credential)
}
