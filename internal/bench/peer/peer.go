// Package peer serves what streamcount is measured against: the same HTTP calls
// through the same router, with something else behind them. Each peer is built
// to be as fast as its idea allows.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"go.uber.org/zap"

	"streamcount/api"
	"streamcount/api/apitype"
	"streamcount/lease"
)

// Config is what a peer runs on. All but the etcd fields are required.
type Config struct {
	Name  string // one of Names
	Dir   string // for its data
	Limit int    // streams a user may have
	TTL   time.Duration
	// EtcdEndpoints are of an etcd to use below EtcdPrefix; without any, peers
	// that need one run their own in Dir.
	EtcdEndpoints []string
	EtcdPrefix    string
	Log           *slog.Logger
	EtcdLog       *zap.Logger // nil discards
}

// limiter is what [api.Backend] takes.
type limiter interface {
	Start(ctx context.Context, user string, r lease.Request) (lease.Started, error)
	Heartbeat(ctx context.Context, user, id string) (lease.Stream, error)
	Heartbeats(ctx context.Context, beats []lease.Beat) []lease.BeatResult
	Stop(ctx context.Context, user, id string) (lease.Usage, error)
	StopQuietest(ctx context.Context, user string) (lease.Usage, error)
	Remove(ctx context.Context, user string) (lease.Usage, error)
	List(ctx context.Context, user string, how lease.Consistency) (lease.Usage, error)
	Totals(ctx context.Context) (lease.Totals, error)
}

// A kind is one peer. open returns what answers its calls and how to end that;
// died delivers an error if it ends by itself, and may be nil.
type kind struct {
	name, what string
	counts     bool // it limits streams, and knows which are alive
	open       func(context.Context, Config) (l limiter, died <-chan error, end func() error, err error)
}

// kinds is a function because noop, which has no open, would otherwise refer
// to itself.
func kinds() []kind {
	return []kind{
		{"redis", "a sorted set a user in Redis, each write fsynced", true, openRedis},
		{"redis-nofsync", "the same without a log on disk", true, openRedis},
		{"naive", "the plain etcd lifecycle: grant, slot transaction, keep-alive, revoke", true, openNaive},
		{"etcd", "one etcd write a call: no limit, no leases", false, openRaw},
		{"noop", "an empty handler on the same router: what HTTP costs", false, nil},
		{"noop-api", "the whole API with nothing behind it", false, openEmpty},
	}
}

func find(name string) (kind, error) {
	for _, k := range kinds() {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("there is no peer %q: the peers are %s", name, strings.Join(Names(), ", "))
}

// Names are those of all peers.
func Names() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// About says in a few words what a peer is.
func About(name string) string {
	k, err := find(name)
	if err != nil {
		return ""
	}
	return k.what
}

// Counts reports whether a peer limits streams and knows which are alive. Of
// others only the answers' form can be checked.
func Counts(name string) bool {
	k, err := find(name)
	return err == nil && k.counts
}

// Check says in one line why a peer cannot run on this machine, or nil.
func Check(name string) error {
	if _, err := find(name); err != nil {
		return err
	}
	if strings.HasPrefix(name, "redis") {
		_, err := redisServer()
		return err
	}
	return nil
}

// Run serves a peer on ln until ctx ends, and calls ready once it does. It
// closes ln.
func Run(ctx context.Context, cfg Config, ln net.Listener, ready func()) (err error) {
	k, err := find(cfg.Name)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if k.open == nil {
		ready()
		return serveNoop(ctx, cfg, ln)
	}
	server, err := api.New(api.Config{
		Node: apitype.Node{ID: cfg.Name, Region: region, Version: "peer"}, Log: cfg.Log,
	})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	l, died, end, err := k.open(ctx, cfg)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer func() { err = errors.Join(err, end()) }()
	server.Use(api.Backend{Limiter: l, Ready: func(context.Context) error { return nil }})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-ctx.Done():
		case err := <-died:
			cancel(fmt.Errorf("what is behind %s ended: %w", cfg.Name, err))
		}
	}()
	ready()
	err = server.Run(ctx, ln)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

const region = "local"

// started is the answer to an admitted start.
func (cfg Config) started(user, id string, count int, now time.Time) lease.Started {
	return lease.Started{Usage: cfg.usage(user, count), Stream: cfg.stream(user, id, now)}
}

func (cfg Config) usage(user string, count int) lease.Usage {
	return lease.Usage{User: user, Count: count, Limit: cfg.Limit}
}

func (cfg Config) stream(user, id string, now time.Time) lease.Stream {
	return lease.Stream{
		ID: id, User: user, StartedAt: now, ExpiresAt: now.Add(cfg.TTL), TTL: cfg.TTL, Region: region,
	}
}

// full is a refusal. It names no stream, because the peers keep no records.
func (cfg Config) full(count int) error {
	return &lease.LimitError{Limit: cfg.Limit, Active: make([]lease.Stream, count), RetryAfter: time.Second}
}

func ended() error { return &lease.EndedError{Reason: lease.ReasonEnded} }

// unavailable is for an error of what is behind a peer.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", lease.ErrUnavailable, doing, err)
}

// rest are the calls that no scenario makes.
type rest struct{}

var errNotAPeersCall = errors.New("the peers do not have this call")

func (rest) StopQuietest(context.Context, string) (lease.Usage, error) {
	return lease.Usage{}, errNotAPeersCall
}

func (rest) Remove(context.Context, string) (lease.Usage, error) {
	return lease.Usage{}, errNotAPeersCall
}

func (rest) Totals(context.Context) (lease.Totals, error) { return lease.Totals{}, errNotAPeersCall }

// beatAll answers a batch by single heartbeats, some at a time.
func beatAll(
	ctx context.Context, beats []lease.Beat, beat func(context.Context, string, string) (lease.Stream, error),
) []lease.BeatResult {
	const atOnce = 64
	out := make([]lease.BeatResult, len(beats))
	free := make(chan struct{}, atOnce)
	for i, b := range beats {
		free <- struct{}{}
		go func() {
			out[i].Stream, out[i].Err = beat(ctx, b.User, b.ID)
			<-free
		}()
	}
	for range atOnce {
		free <- struct{}{}
	}
	return out
}
