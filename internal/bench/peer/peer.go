// Package peer serves the peers that streamcount is compared with. They answer the same
// HTTP calls, most of them through streamcount's API code with another limiter. Each
// peer but plain is as fast as its design allows.
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
	"streamcount/lease/policy"
)

// Config configures a peer. All fields but those of etcd are required.
type Config struct {
	Name  string // one of Names
	Dir   string // for its data
	Limit int    // maximum number of streams per user
	TTL   time.Duration
	// EtcdEndpoints are the addresses of an etcd to use below EtcdPrefix. Without any, a
	// peer that needs etcd embeds one in Dir.
	EtcdEndpoints []string
	EtcdPrefix    string
	Log           *slog.Logger
	EtcdLog       *zap.Logger // nil discards
}

// limiter is the limiter of an [api.Backend].
type limiter interface {
	Start(ctx context.Context, user string, r lease.Request) (lease.Started, error)
	Heartbeat(ctx context.Context, user, id string) (lease.Stream, error)
	Heartbeats(ctx context.Context, heartbeats []lease.HeartbeatRequest) []lease.HeartbeatResult
	Stop(ctx context.Context, user, id string) (lease.Usage, error)
	StopOldestHeartbeat(ctx context.Context, user string) (lease.Usage, error)
	Remove(ctx context.Context, user string) (lease.Usage, error)
	List(ctx context.Context, user string, how lease.Consistency) (lease.Usage, error)
	Totals(ctx context.Context) (lease.Totals, error)
}

// A peerKind is one kind of peer. open returns its limiter and a function that closes
// it. died receives an error if the limiter fails by itself; it may be nil. A peer
// without the API code has serve instead.
type peerKind struct {
	name, about   string
	enforcesLimit bool // it enforces the limit and reports which streams exist
	open          func(context.Context, Config) (l limiter, died <-chan error, end func() error, err error)
	serve         func(ctx context.Context, cfg Config, ln net.Listener, ready func()) error // it closes ln
}

// allPeers returns all peers. It is a function to avoid an initialization cycle.
func allPeers() []peerKind {
	return []peerKind{
		{"redis", "Redis, a sorted set per user, each write synced", true, openRedis, nil},
		{"redis-nofsync", "the same without persistence", true, openRedis, nil},
		{"plain", "a plain service: net/http, encoding/json, Redis with each write synced", true, nil, servePlain},
		{"naive", "etcd: grant, transaction, keep-alive, revoke, one by one", true, openNaive, nil},
		{"etcd", "etcd, one write per call: no limit, no leases", false, openRaw, nil},
		{"noop", "an empty handler on the same router: the cost of HTTP", false, nil, serveNoop},
		{"noop-api", "the whole API without a limiter", false, openEmpty, nil},
	}
}

func findPeer(name string) (peerKind, error) {
	for _, k := range allPeers() {
		if k.name == name {
			return k, nil
		}
	}
	return peerKind{}, fmt.Errorf("there is no peer %q: the peers are %s", name, strings.Join(Names(), ", "))
}

// Names returns the names of all peers.
func Names() []string {
	var names []string
	for _, k := range allPeers() {
		names = append(names, k.name)
	}
	return names
}

// About describes a peer in a few words.
func About(name string) string {
	k, err := findPeer(name)
	if err != nil {
		return ""
	}
	return k.about
}

// EnforcesLimit reports whether a peer enforces the limit and reports which streams
// exist. Of the others, only the form of the answers can be checked.
func EnforcesLimit(name string) bool {
	k, err := findPeer(name)
	return err == nil && k.enforcesLimit
}

// Check returns an error if a peer does not exist or cannot run on this machine.
func Check(name string) error {
	if _, err := findPeer(name); err != nil {
		return err
	}
	if strings.HasPrefix(name, "redis") || name == "plain" {
		_, err := redisServer()
		return err
	}
	return nil
}

// Run serves a peer on ln until ctx ends, and calls ready when it does. It closes ln.
func Run(ctx context.Context, cfg Config, ln net.Listener, ready func()) (err error) {
	k, err := findPeer(cfg.Name)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if k.serve != nil {
		return k.serve(ctx, cfg, ln, ready)
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
	server.SetBackend(api.Backend{Limiter: l, Ready: func(context.Context) error { return nil }})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-ctx.Done():
		case err := <-died:
			cancel(fmt.Errorf("the peer %s failed: %w", cfg.Name, err))
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

// started returns the result of an admitted start.
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

// limitError returns the error of a refused start. It names no streams, because peers
// store no records.
func (cfg Config) limitError(count int) error {
	return &lease.LimitError{Limit: cfg.Limit, Active: make([]lease.Stream, count), RetryAfter: time.Second}
}

func endedError() error { return &lease.EndedError{Reason: policy.ReasonEnded} }

// unavailable returns an error of the peer's backend.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", lease.ErrUnavailable, doing, err)
}

// unsupported implements the calls that no scenario makes.
type unsupported struct{}

var errUnsupported = errors.New("peers do not support this call")

func (unsupported) StopOldestHeartbeat(context.Context, string) (lease.Usage, error) {
	return lease.Usage{}, errUnsupported
}

func (unsupported) Remove(context.Context, string) (lease.Usage, error) {
	return lease.Usage{}, errUnsupported
}

func (unsupported) Totals(context.Context) (lease.Totals, error) {
	return lease.Totals{}, errUnsupported
}

// heartbeatAll processes a batch as single heartbeats, with bounded concurrency.
func heartbeatAll(
	ctx context.Context, heartbeats []lease.HeartbeatRequest, heartbeat func(context.Context, string, string) (lease.Stream, error),
) []lease.HeartbeatResult {
	const maxConcurrent = 64
	out := make([]lease.HeartbeatResult, len(heartbeats))
	free := make(chan struct{}, maxConcurrent)
	for i, b := range heartbeats {
		free <- struct{}{}
		go func() {
			out[i] = lease.NewHeartbeatResult(heartbeat(ctx, b.User, b.ID))
			<-free
		}()
	}
	for range maxConcurrent {
		free <- struct{}{}
	}
	return out
}
