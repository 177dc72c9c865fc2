package access

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A provider is an entry of the configuration with its keys.
type provider struct {
	providerConfig
	keys     keySource   // nil without jwks
	secret   *secretFile // nil without secretFile
	rejected counts
}

// An issuerSet is the issuers of one version of the configuration. It is immutable; the
// keys of its issuers change.
type issuerSet struct {
	list    []*provider
	byIss   map[string]*provider // by iss
	sources map[keysConfig]keySource
	secrets map[string]*secretFile // by path
	log     *slog.Logger
}

// newIssuerSet creates the issuers of a configuration. It reuses key sources of old, with
// their keys and the time of their last fetch.
func (v *verifier) newIssuerSet(entries []providerConfig, old *issuerSet) (*issuerSet, error) {
	s := &issuerSet{
		byIss: map[string]*provider{}, sources: map[keysConfig]keySource{}, secrets: map[string]*secretFile{}, log: v.log,
	}
	for n, config := range entries {
		i := &provider{providerConfig: config, rejected: newCounts()}
		log := v.log.With("issuer", config.name)
		if err := v.addSources(s, i, old, log); err != nil {
			return nil, fmt.Errorf("%s: %w", entryName(n, config.name), err)
		}
		if at := slices.IndexFunc(old.list, func(o *provider) bool { return o.name == i.name }); at >= 0 {
			i.rejected = old.list[at].rejected
		}
		s.list = append(s.list, i)
		for _, iss := range config.issuers {
			s.byIss[iss] = i
		}
	}
	return s, nil
}

func (v *verifier) addSources(s *issuerSet, i *provider, old *issuerSet, log *slog.Logger) (err error) {
	if from := i.providerConfig.keys; from != (keysConfig{}) {
		if i.keys = s.sources[from]; i.keys == nil {
			i.keys = old.sources[from]
		}
		switch {
		case i.keys != nil:
		case from.url != "":
			i.keys, err = newFetcher(from, v.transport, v.waiting, log)
		default:
			i.keys, err = newKeyFile(from.file, log)
		}
		if err != nil {
			return fmt.Errorf("jwks: %w", err)
		}
		s.sources[from] = i.keys
	}
	if path := i.secretFile; path != "" {
		if i.secret = s.secrets[path]; i.secret == nil {
			i.secret = old.secrets[path]
		}
		if i.secret == nil {
			if i.secret, err = newSecretFile(path, log); err != nil {
				return fmt.Errorf("secretFile: %w", err)
			}
		}
		s.secrets[path] = i.secret
	}
	return nil
}

// warn logs settings that are allowed but risky.
func (s *issuerSet) warn() {
	for _, i := range s.list {
		if i.anyAudience {
			s.log.Warn("tokens of an issuer are accepted whatever their audience: tokens that it makes for other services "+
				"are accepted too", "issuer", i.name)
		}
	}
}

func (s *issuerSet) runners() []runner {
	var out []runner
	for _, source := range s.sources {
		out = append(out, source)
	}
	for _, secret := range s.secrets {
		out = append(out, secret)
	}
	return out
}

// slashHint returns the configured issuer that differs from iss only in a final slash, or "".
func (s *issuerSet) slashHint(iss string) string {
	for known, i := range s.byIss {
		if iss != known && strings.TrimSuffix(iss, "/") == strings.TrimSuffix(known, "/") {
			return i.name
		}
	}
	return ""
}

// useFile reads an auth file, and reads it again when it changes. All of the file
// applies, or none of it.
func (v *verifier) useFile(content []byte, path string) error {
	entries, err := readAuthFile(content, filepath.Dir(path))
	if err != nil {
		return err
	}
	return v.use(entries)
}

// use replaces the configuration by entries.
func (v *verifier) use(entries []providerConfig) error {
	next, err := v.newIssuerSet(entries, v.issuers.Load())
	if err != nil {
		return err
	}
	next.warn()
	v.issuers.Store(next)
	select {
	case v.changed <- struct{}{}:
	default: // run has a pending notification
	}
	return nil
}

// run keeps the keys of the issuers up to date until ctx ends. Updates for a
// removed issuer end, and those for a new issuer begin.
func (v *verifier) run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	cancels := map[runner]context.CancelFunc{}
	for {
		wanted := v.issuers.Load().runners()
		for _, r := range wanted {
			if cancels[r] != nil {
				continue
			}
			each, cancel := context.WithCancel(ctx)
			cancels[r] = cancel
			running.Go(func() {
				if err := r.run(each); err != nil {
					v.log.Error("keys of viewers' tokens are not kept up to date", "err", err)
				}
			})
		}
		for r, cancel := range maps.Clone(cancels) {
			if !slices.Contains(wanted, r) || ctx.Err() != nil {
				cancel()
				delete(cancels, r)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range cancels {
				cancel()
			}
			return nil
		case <-v.changed:
		}
	}
}

// IssuerState is the state of an issuer of viewers' tokens.
type IssuerState struct {
	Name     string    // as configured; "" counts tokens of no configured issuer
	Keys     int       // public keys that can be used
	Remote   bool      // its keys are fetched from a URL
	Fetched  time.Time // time of the last fetch; zero if there was none
	Rejected map[Reason]int64
}

// Issuers returns the state of each configured issuer, and of tokens without a configured issuer.
func (a *Authenticator) Issuers() []IssuerState {
	if a.viewers == nil {
		return nil
	}
	out := []IssuerState{{Rejected: a.viewers.unknown.snapshot()}}
	for _, i := range a.viewers.issuers.Load().list {
		state := IssuerState{Name: i.name, Rejected: i.rejected.snapshot()}
		if i.keys != nil && i.keys.current() != nil {
			state.Keys = len(i.keys.current().keys)
		}
		if f, ok := i.keys.(*fetcher); ok {
			state.Remote, state.Fetched = true, f.lastFetched()
		}
		out = append(out, state)
	}
	return out
}
