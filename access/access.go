package access

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"streamcount/internal/filewatch"
)

var (
	// ErrCredential means that a credential is not valid. Its text has the reason and
	// contains no part of the credential.
	ErrCredential = errors.New("the credential is not accepted")
	// ErrUnavailable means that a credential cannot be checked now, and may be valid.
	ErrUnavailable = errors.New("access: credentials cannot be checked at the moment")
)

// An Authenticator identifies callers. Create one with [New]; it is safe for concurrent
// use. [Authenticator.Run] keeps its keys up to date.
type Authenticator struct {
	log     *slog.Logger
	keys    atomic.Pointer[keyring] // nil if there are no API keys
	viewers *verifier               // nil if there are no tokens
	files   []*filewatch.Files      // of API keys and issuers
}

// New reads the files that cfg names. Run fetches keys from URLs.
func New(cfg Config) (*Authenticator, error) {
	a := &Authenticator{log: cfg.Log}
	if a.log == nil {
		a.log = slog.Default()
	}
	if cfg.KeysFile != "" {
		warnIfExposed(cfg.KeysFile, a.log)
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
	if cfg.tokens() {
		return a, a.useTokens(cfg)
	}
	return a, nil
}

func (a *Authenticator) follow(path string, load func(content []byte) error) error {
	f, err := followFile(path, load)
	a.files = append(a.files, f)
	return err
}

func (a *Authenticator) useTokens(cfg Config) (err error) {
	if a.viewers, err = newVerifier(cfg, a.log); err != nil {
		return err
	}
	if cfg.AuthFile == "" {
		entry, err := cfg.Tokens.provider()
		if err != nil {
			return err
		}
		return a.viewers.use([]providerConfig{entry})
	}
	if cfg.Tokens.configured() {
		return errors.New("an auth file replaces the other settings of viewers' tokens: use one of the two")
	}
	return a.follow(cfg.AuthFile, func(content []byte) error { return a.viewers.useFile(content, cfg.AuthFile) })
}

// Run keeps keys up to date until ctx ends.
func (a *Authenticator) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, f := range a.files {
		g.Go(func() error { return f.Run(ctx, filesEvery, a.log) })
	}
	if a.viewers != nil {
		g.Go(func() error { return a.viewers.run(ctx) })
	}
	return g.Wait()
}

// Authenticate returns the caller of a request, [Anonymous] without a credential. The
// credential is a bearer token in the only Authorization header. Errors are [ErrCredential]
// and [ErrUnavailable].
func (a *Authenticator) Authenticate(r *http.Request) (Caller, error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		return Caller{}, nil
	}
	scheme, credential, ok := strings.Cut(headers[0], " ")
	switch {
	case len(headers) > 1:
		return Caller{}, reject(ReasonHeader, "there is more than one Authorization header")
	case !ok || !strings.EqualFold(scheme, "Bearer") || credential == "" || strings.ContainsAny(credential, " \t,"):
		return Caller{}, reject(ReasonHeader, "want the header as 'Authorization: Bearer CREDENTIAL'")
	case len(credential) > maxToken:
		return Caller{}, reject(ReasonHeader, "it is longer than %d bytes", maxToken)
	}
	ring := a.keys.Load()
	switch {
	case isKey(credential) && ring != nil:
		if caller, ok := ring.find(credential); ok {
			return caller, nil
		}
		return Caller{}, reject(ReasonAPIKey, "there is no such API key")
	case a.viewers == nil || isKey(credential):
		return Caller{}, reject(ReasonHeader, "credentials of that kind are not configured here")
	}
	k, err := a.viewers.verify(r.Context(), credential, false)
	return k.caller, err
}

// FindKey returns the caller with that API key.
func (a *Authenticator) FindKey(key string) (Caller, bool) {
	ring := a.keys.Load()
	if ring == nil || !isKey(key) || len(key) > maxToken {
		return Caller{}, false
	}
	return ring.find(key)
}

// HasTokens reports whether viewers' tokens are configured.
func (a *Authenticator) HasTokens() bool { return a.viewers != nil }
