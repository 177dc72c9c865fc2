package node

import (
	"context"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/api"
	"streamcount/internal/config"
	"streamcount/internal/filewatch"
	"streamcount/shard"
	"streamcount/token"
	"streamcount/token/formats"
	"streamcount/token/keystore"
)

// The times of the keys in etcd.
const (
	tokenKeyPrepublish = time.Hour // verifiers cache the keys for at most this long
	tokenKeyPeriod     = 30 * 24 * time.Hour
	// tokenKeyMargin is how long a key is published after the last token that it signed has expired.
	tokenKeyMargin = time.Hour + 2*time.Minute

	maxTokenKeysWait  = 10 * time.Second
	tokenFileInterval = 3 * time.Second // of the checks of the files
)

// setTokens configures the playback tokens of the HTTP server, and returns the tasks that reload
// their files. The keys in etcd follow in [service.tokenStore].
func (n *service) setTokens(c *api.Config) (watchers []background, err error) {
	if n.cfg.TokenIssuer == "" {
		return nil, nil
	}
	n.tokenKeys = &token.Ring{}
	c.Tokens = &api.Tokens{JWT: token.New(token.Config{
		Issuer: n.cfg.TokenIssuer, Audience: n.cfg.TokenAudience, Life: n.cfg.TokenLife,
	}, n.tokenKeys)}
	if path := n.cfg.TokenKeyFile; path != "" {
		watch, err := n.watchTokenFile("token-key-file", path, func(content []byte) error {
			keys, err := token.ParseFile(content, token.Algorithm(n.cfg.TokenAlgorithm))
			if err == nil {
				n.tokenKeys.SetFile(keys)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		watchers = append(watchers, watch)
	}
	if path := n.cfg.TokenFormatsFile; path != "" {
		var current atomic.Pointer[formats.Formats]
		watch, err := n.watchTokenFile("token-formats-file", path, func(content []byte) error {
			f, err := formats.Parse(content)
			if err == nil {
				current.Store(f)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		c.Tokens.Formats = current.Load
		watchers = append(watchers, watch)
	}
	return watchers, nil
}

// watchTokenFile loads a file with secrets, and returns the task that reloads it.
func (n *service) watchTokenFile(setting, path string, load func([]byte) error) (background, error) {
	if mode, exposed := filewatch.WorldReadable(path); exposed {
		n.logs.slog.Warn("the file with keys of playback tokens is readable by every user of this machine: restrict its permissions",
			"file", path, "mode", mode.String())
	}
	files, err := filewatch.New(func(contents [][]byte) error { return load(contents[0]) }, path)
	if err != nil {
		return nil, config.Errorf("%s %q: %w", setting, path, err)
	}
	return func(ctx context.Context) error { return files.Run(ctx, tokenFileInterval, n.logs.slog) }, nil
}

// tokenStore returns the store of the keys in etcd; nil if they are in a file, or if there are no
// tokens.
func (n *service) tokenStore(b *backend, r *shard.Router) *keystore.Store {
	if n.tokenKeys == nil || n.cfg.TokenKeyFile != "" {
		return nil
	}
	return keystore.New(keystore.Config{
		Prefix: n.cfg.EtcdPrefix + "/tokenkeys/", Algorithm: token.Algorithm(n.cfg.TokenAlgorithm),
		Prepublish: tokenKeyPrepublish, Period: tokenKeyPeriod, Retention: n.cfg.TokenLife + tokenKeyMargin,
		Spread: keystore.MaxDelay,
	}, n.tokenKeys, func() *clientv3.Client { return b.firstClient(r) }, n.logs.slog)
}

// waitForTokenKeys waits until a node that has reached etcd has the keys of playback tokens, so that it is
// not ready before. If they cannot be read soon, the node serves what needs no tokens.
func waitForTokenKeys(serving, ctx context.Context, s *keystore.Store) {
	select {
	case <-s.Ready():
	case <-time.After(maxTokenKeysWait):
	case <-serving.Done():
	case <-ctx.Done():
	}
}

// firstClient returns the client of the first shard; nil if it has not been reached.
func (b *backend) firstClient(r *shard.Router) *clientv3.Client {
	m := r.Map()
	if m == nil { // it was not read yet
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clients[m.Shards[0].Name]
}
