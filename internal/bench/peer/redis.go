package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"streamcount/internal/bench/child"
	"streamcount/lease"
)

// The permit that a team would write on Redis: a user's streams in a sorted
// set, scored by when each lapses. Each script runs by itself, so the count
// cannot pass the limit. Nothing sweeps the sets of users who never come back.
const (
	now = `local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`
	// acquire answers the new count, or minus the count of a full house.
	acquire = now + `redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[4] ~= '' then redis.call('ZREM', KEYS[1], ARGV[4]) end
local n = redis.call('ZCARD', KEYS[1])
if n >= tonumber(ARGV[2]) then return -n end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
return n + 1`
	// heartbeat answers 1, or 0 for a stream that is not there.
	heartbeat = now + `local s = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not s or tonumber(s) <= now then return 0 end
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
return 1`
	// release answers the new count, or -1 for a stream that is not there.
	release = `if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return -1 end
return redis.call('ZCARD', KEYS[1])`
	count = now + `return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')`
)

type redis struct {
	rest
	cfg                               Config
	link                              *link
	acquire, heartbeat, release, list string // the scripts' hashes
	ttl, limit                        string
}

// redisServer finds the program.
func redisServer() (string, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", errors.New("the redis peers need redis-server on the PATH: install it " +
			"(Debian, Ubuntu: apt-get install redis-server), or leave them out of --peer")
	}
	return path, nil
}

// openRedis starts a Redis of its own in cfg.Dir, reached by a Unix socket.
func openRedis(ctx context.Context, cfg Config) (limiter, <-chan error, func() error, error) {
	path, err := redisServer()
	if err != nil {
		return nil, nil, nil, err
	}
	socket := filepath.Join(cfg.Dir, "redis.sock")
	if len(socket) > 100 { // of the 107 bytes that a socket's address may have
		return nil, nil, nil, fmt.Errorf("the path %s is too long for a socket: choose a shorter --dir", socket)
	}
	args := []string{"--port", "0", "--unixsocket", socket, "--dir", cfg.Dir, "--save", "", "--appendonly"}
	if cfg.Name == "redis-nofsync" {
		args = append(args, "no")
	} else {
		args = append(args, "yes", "--appendfsync", "always")
	}
	var said bytes.Buffer
	// Not under ctx: what is still in flight at the end needs it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	server, err := child.Start(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	end := func() { server.Stop(5 * time.Second) }
	conn, err := dialRedis(ctx, socket, server)
	if err != nil {
		end()
		return nil, nil, nil, fmt.Errorf("%w: %s", err, lastLine(said.String()))
	}
	r := &redis{
		cfg: cfg, link: newLink(conn),
		ttl: strconv.FormatInt(cfg.TTL.Milliseconds(), 10), limit: strconv.Itoa(cfg.Limit),
	}
	stop := func() error { r.link.close(); end(); return nil }
	if err := r.load(ctx); err != nil {
		return nil, nil, nil, errors.Join(err, stop())
	}
	return r, r.link.died, stop, nil
}

// load has Redis compile the scripts, as soon as it has read its log.
func (r *redis) load(ctx context.Context) (err error) {
	for _, s := range []struct {
		hash *string
		text string
	}{{&r.acquire, acquire}, {&r.heartbeat, heartbeat}, {&r.release, release}, {&r.list, count}} {
		for {
			_, *s.hash, err = r.link.do("SCRIPT", "LOAD", s.text)
			if err == nil {
				break
			}
			refused, ok := errors.AsType[*redisError](err)
			if !ok || !strings.HasPrefix(refused.text, "LOADING") || ctx.Err() != nil {
				return fmt.Errorf("load a script: %w", err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// dialRedis tries until the new server listens and has loaded its data.
func dialRedis(ctx context.Context, socket string, server *child.Process) (net.Conn, error) {
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-server.Done():
			return nil, errors.New("redis-server ended at once")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-deadline.C:
			return nil, fmt.Errorf("redis-server does not answer: %w", err)
		case <-again.C:
		}
	}
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// Start adds a stream to the user's set unless that is full.
func (r *redis) Start(_ context.Context, user string, req lease.Request) (lease.Started, error) {
	at, id := time.Now(), randomID()
	n, _, err := r.link.do("EVALSHA", r.acquire, "1", user, id, r.limit, r.ttl, req.Replaces)
	switch {
	case err != nil:
		return lease.Started{}, unavailable("acquire", err)
	case n <= 0:
		return lease.Started{}, r.cfg.full(int(-n))
	}
	return r.cfg.started(user, id, int(n), at), nil
}

func (r *redis) Heartbeat(_ context.Context, user, id string) (lease.Stream, error) {
	return r.beaten(time.Now(), user, id, r.sendBeat(user, id))
}

func (r *redis) sendBeat(user, id string) *call {
	return r.link.send("EVALSHA", r.heartbeat, "1", user, id, r.ttl)
}

func (r *redis) beaten(at time.Time, user, id string, c *call) (lease.Stream, error) {
	n, _, err := r.link.wait(c)
	switch {
	case err != nil:
		return lease.Stream{}, unavailable("heartbeat", err)
	case n == 0:
		return lease.Stream{}, ended()
	}
	return r.cfg.stream(user, id, at), nil
}

// Heartbeats sends all before it waits for the first.
func (r *redis) Heartbeats(_ context.Context, beats []lease.Beat) []lease.BeatResult {
	at, sent := time.Now(), make([]*call, len(beats))
	for i, b := range beats {
		sent[i] = r.sendBeat(b.User, b.ID)
	}
	out := make([]lease.BeatResult, len(beats))
	for i, b := range beats {
		out[i].Stream, out[i].Err = r.beaten(at, b.User, b.ID, sent[i])
	}
	return out
}

// Stop takes a stream out of the user's set.
func (r *redis) Stop(_ context.Context, user, id string) (lease.Usage, error) {
	n, _, err := r.link.do("EVALSHA", r.release, "1", user, id)
	switch {
	case err != nil:
		return lease.Usage{}, unavailable("release", err)
	case n < 0:
		return lease.Usage{}, ended()
	}
	return r.cfg.usage(user, int(n)), nil
}

func (r *redis) List(_ context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	n, _, err := r.link.do("EVALSHA", r.list, "1", user)
	switch {
	case err != nil:
		return lease.Usage{}, unavailable("count", err)
	case n == 0:
		return lease.Usage{}, lease.ErrNoStreams
	}
	return r.cfg.usage(user, int(n)), nil
}
