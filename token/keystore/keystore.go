// Package keystore stores the keys of playback tokens in etcd. All nodes sign with the same key and
// publish the same keys. A key is published before it signs, so that verifiers that cache the keys
// have it by then, and it is published until no token that it signed is valid.
package keystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/retry"
	"streamcount/token"
)

// A Store keeps a ring up to date with the keys in etcd, replaces keys after their time, and
// removes them.
type Store struct {
	cfg    Config
	ring   *token.Ring
	client func() *clientv3.Client // nil while etcd has not been reached
	log    *slog.Logger
	ready  chan struct{} // closed when the ring has keys
	wake   chan struct{} // makes Run read the keys again
	known  []stored      // those that Run read last
}

// New returns a Store. client returns the client of the etcd that has the keys, which may change.
func New(cfg Config, ring *token.Ring, client func() *clientv3.Client, log *slog.Logger) *Store {
	return &Store{cfg: cfg, ring: ring, client: client, log: log, ready: make(chan struct{}), wake: make(chan struct{}, 1)}
}

const (
	pollInterval  = 15 * time.Second // of the reads besides those after changes
	firstInterval = time.Second      // of failed reads, while there are no keys
	callTimeout   = 5 * time.Second
	// answerTimeout is that of Keys and Rotate, whose callers wait 5 s for the answer.
	answerTimeout = 3 * time.Second
)

// MaxDelay is how long it may take until a node that reaches etcd, but whose watch has failed, has
// read a change.
const MaxDelay = pollInterval + callTimeout

// ErrUnavailable means that etcd did not respond.
var ErrUnavailable = errors.New("keystore: etcd is unavailable")

// Ready returns a channel that is closed when the ring has keys.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Run follows the keys until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	isReady := false
	for failures := 0; ctx.Err() == nil; {
		c := s.client()
		revision, err := s.sync(ctx, c, time.Now())
		wait := pollInterval
		if err != nil {
			if ctx.Err() == nil && failures%20 == 3 {
				s.log.Warn("the keys of playback tokens cannot be read or changed; the keys that are known remain in use", "err", err)
			}
			failures++
			wait = min(time.Duration(failures)*250*time.Millisecond, pollInterval)
		} else {
			failures = 0
		}
		switch {
		case isReady:
		case len(s.ring.Entries()) > 0:
			isReady = true
			close(s.ready)
		default: // nodes become ready soon after etcd
			wait = min(wait, firstInterval)
		}
		s.waitForChange(ctx, c, revision, wait)
	}
	return nil
}

// waitForChange returns when the keys have changed after a revision, 0 for none, when wake is
// signalled, or after a time.
func (s *Store) waitForChange(ctx context.Context, c *clientv3.Client, revision int64, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var changes clientv3.WatchChan
	if revision > 0 {
		changes = c.Watch(ctx, s.cfg.Prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	}
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-changes: // an error, too: the next read follows
		_ = retry.Sleep(ctx, 20*time.Millisecond) // a watch that fails at once must not cause a busy loop
	}
}

// sync reads the keys, creates and removes keys whose time has come, and updates the ring. It returns
// the revision of the keys.
func (s *Store) sync(ctx context.Context, c *clientv3.Client, now time.Time) (int64, error) {
	for range maxAttempts {
		keys, revision, err := s.read(ctx, c)
		if err != nil {
			return 0, err
		}
		var missing []stored
		if len(keys) == 0 {
			missing = s.known // after a change to another etcd
		}
		if from, due := s.cfg.due(keys, now); due && len(missing) == 0 {
			if missing, err = s.create(now, from); err != nil {
				return 0, err
			}
		}
		if len(missing) == 0 {
			s.known = keys
			s.ring.Set(s.cfg.entries(keys))
			return revision, s.removeExpired(ctx, c, keys, now)
		}
		if _, err := s.put(ctx, c, revision, missing); err != nil {
			return 0, err
		}
	}
	return 0, errContention
}

// maxAttempts is how often the keys are read again because another node has changed them.
const maxAttempts = 5

var errContention = fmt.Errorf("%w: other nodes change the keys at the same time", ErrUnavailable)

// create returns a new key.
func (s *Store) create(now, from time.Time) ([]stored, error) {
	key, err := token.NewKey(s.cfg.Algorithm)
	return []stored{{Key: key, Created: now.UTC(), From: from.UTC()}}, err
}

// read returns the keys in their order. Keys of an unknown form, which other versions may have
// written, are skipped.
func (s *Store) read(ctx context.Context, c *clientv3.Client) (keys []stored, revision int64, err error) {
	if c == nil {
		return nil, 0, fmt.Errorf("%w: it has not been reached yet", ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.Get(ctx, s.cfg.Prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("%w: read the keys of playback tokens: %w", ErrUnavailable, err)
	}
	for _, kv := range resp.Kvs {
		k, err := decode(kv.Value)
		if err != nil {
			s.log.Error("a key of playback tokens cannot be decoded and is not used: delete it, unless a later version wrote it",
				"key", string(kv.Key), "err", err)
			continue
		}
		k.revision = kv.ModRevision
		keys = append(keys, k)
	}
	order(keys)
	return keys, resp.Header.Revision, nil
}

// put writes keys, unless a key was put after a revision. It reports whether it wrote them.
func (s *Store) put(ctx context.Context, c *clientv3.Client, revision int64, keys []stored) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var puts []clientv3.Op
	for _, k := range keys {
		value, err := json.Marshal(k)
		if err != nil {
			return false, fmt.Errorf("encode a key: %w", err)
		}
		puts = append(puts, clientv3.OpPut(s.cfg.Prefix+k.Key.ID, string(value)))
	}
	resp, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.cfg.Prefix), "<", revision+1).WithPrefix()).
		Then(puts...).Commit()
	if err != nil {
		return false, fmt.Errorf("%w: write a key of playback tokens: %w", ErrUnavailable, err)
	}
	return resp.Succeeded, nil
}

// removeExpired deletes the keys that verifiers no longer need.
func (s *Store) removeExpired(ctx context.Context, c *clientv3.Client, keys []stored, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for i, k := range keys {
		if s.cfg.state(keys, i, now) != removed {
			continue
		}
		name := s.cfg.Prefix + k.Key.ID
		if _, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(name), "=", k.revision)).
			Then(clientv3.OpDelete(name)).Commit(); err != nil {
			return fmt.Errorf("%w: delete a key of playback tokens: %w", ErrUnavailable, err)
		}
	}
	return nil
}

// Keys returns the keys in the order in which they sign. Returns [ErrUnavailable].
func (s *Store) Keys(ctx context.Context) ([]token.KeyInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	keys, _, err := s.read(ctx, s.client())
	return s.describe(keys, time.Now()), err
}

func (s *Store) describe(keys []stored, now time.Time) []token.KeyInfo {
	out := []token.KeyInfo{}
	for i, k := range keys {
		state := s.cfg.state(keys, i, now)
		if state == removed {
			continue
		}
		info := token.KeyInfo{ID: k.Key.ID, Algorithm: k.Key.Algorithm, State: state, Created: k.Created, From: k.From}
		if end := s.cfg.end(keys, i); !end.IsZero() {
			info.Until = end.Add(s.cfg.Retention)
		}
		out = append(out, info)
	}
	return out
}

// Rotate creates the next key, which signs after Config.Prepublish, or at once, which is after
// Config.Spread. A key that is published but does not sign yet is not replaced; at once makes it sign.
// Rotate is safe to repeat. Returns [ErrUnavailable].
func (s *Store) Rotate(ctx context.Context, atOnce bool) ([]token.KeyInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c := s.client()
	for range maxAttempts {
		keys, revision, err := s.read(ctx, c)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		next, err := s.next(keys, now, atOnce)
		if err != nil {
			return nil, err
		}
		if len(next) == 0 {
			return s.describe(keys, now), nil
		}
		written, err := s.put(ctx, c, revision, next)
		if err != nil {
			return nil, err
		}
		if written {
			select {
			case s.wake <- struct{}{}:
			default: // Run will read the keys in any case
			}
			return s.Keys(ctx)
		}
	}
	return nil, errContention
}

// next returns the key that a rotation writes; none if a rotation is in progress.
func (s *Store) next(keys []stored, now time.Time, atOnce bool) ([]stored, error) {
	for i, k := range keys {
		if k.Key.Algorithm != s.cfg.Algorithm || s.cfg.state(keys, i, now) != token.Published {
			continue
		}
		from := k.Created.Add(s.cfg.Spread)
		if from.Before(now) {
			from = now
		}
		if !atOnce || !from.Before(k.From) {
			return nil, nil
		}
		k.From = from.UTC()
		return []stored{k}, nil
	}
	if atOnce {
		return s.create(now, now.Add(s.cfg.Spread))
	}
	return s.create(now, now.Add(s.cfg.Prepublish))
}
