package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"streamcount/internal/bench/child"
	"streamcount/lease"
)

// A user's streams are a sorted set, scored by when each expires. A script runs
// atomically, so the count cannot exceed the limit. The sets of users who do not
// return are not deleted.
const now = `local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

var (
	// acquireScript returns the new count, or the negative count if the limit is reached.
	acquireScript = redis.NewScript(now + `redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[4] ~= '' then redis.call('ZREM', KEYS[1], ARGV[4]) end
local n = redis.call('ZCARD', KEYS[1])
if n >= tonumber(ARGV[2]) then return -n end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
return n + 1`)
	// renewScript returns 1, or 0 if the stream does not exist.
	renewScript = redis.NewScript(now + `local s = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not s or tonumber(s) <= now then return 0 end
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
return 1`)
	// releaseScript returns the new count, or -1 if the stream does not exist.
	releaseScript = redis.NewScript(`if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return -1 end
return redis.call('ZCARD', KEYS[1])`)
	countScript = redis.NewScript(now + `return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')`)
)

// redisLimiter calls Redis through one pipelined connection, which the callers
// share: this costs Redis fewer system calls than a connection for each caller, and
// fewer fsyncs of its log.
type redisLimiter struct {
	unsupported
	cfg       Config
	rdb       *redis.AutoPipeliner
	ttlMillis int64
}

// redisServer returns the path of redis-server.
func redisServer() (string, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", errors.New("the redis peers need redis-server in PATH: install it " +
			"(Debian, Ubuntu: apt-get install redis-server), or leave them out of --peer")
	}
	return path, nil
}

// openRedis starts a Redis server in cfg.Dir.
func openRedis(ctx context.Context, cfg Config) (limiter, <-chan error, func() error, error) {
	client, died, stop, err := startRedis(ctx, cfg, &redis.Options{Protocol: 2})
	if err != nil {
		return nil, nil, nil, err
	}
	pipeline, err := client.AutoPipeline()
	if err != nil {
		return nil, nil, nil, errors.Join(err, stop())
	}
	return &redisLimiter{cfg: cfg, rdb: pipeline, ttlMillis: cfg.TTL.Milliseconds()}, died, stop, nil
}

// startRedis starts a Redis server in cfg.Dir, which listens on a Unix socket, and
// loads the scripts. stop closes the client and ends the server.
func startRedis(ctx context.Context, cfg Config, opts *redis.Options) (c *redis.Client, died <-chan error, stop func() error, err error) {
	path, err := redisServer()
	if err != nil {
		return nil, nil, nil, err
	}
	socket := filepath.Join(cfg.Dir, "redis.sock")
	if len(socket) > 100 { // the address of a socket is limited to 107 bytes
		return nil, nil, nil, fmt.Errorf("the path %s is too long for a socket: choose a shorter --dir", socket)
	}
	args := []string{"--port", "0", "--unixsocket", socket, "--dir", cfg.Dir, "--save", "", "--appendonly"}
	if cfg.Name == "redis-nofsync" {
		args = append(args, "no")
	} else {
		args = append(args, "yes", "--appendfsync", "always")
	}
	var output bytes.Buffer
	// The server outlives ctx, because calls in flight need it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	server, err := child.Start(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	opts.Network, opts.Addr, opts.DisableIdentity = "unix", socket, true
	client := redis.NewClient(opts)
	stop = func() error {
		err := client.Close()
		server.Stop(5 * time.Second)
		return err
	}
	if err := loadScripts(ctx, client, server); err != nil {
		err = errors.Join(err, stop())
		return nil, nil, nil, fmt.Errorf("%w: %s", err, lastLine(output.String()))
	}
	exited := make(chan error, 1)
	go func() {
		<-server.Done()
		exited <- errors.New("redis-server exited")
	}()
	return client, exited, stop, nil
}

// loadScripts has a new server compile the scripts. It retries until the server
// listens and has loaded its data.
func loadScripts(ctx context.Context, client *redis.Client, server *child.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, script := range []*redis.Script{acquireScript, renewScript, releaseScript, countScript} {
		for {
			err := script.Load(ctx, client).Err()
			if err == nil {
				break
			}
			select {
			case <-server.Done():
				return errors.New("redis-server exited at once")
			case <-ctx.Done():
				return fmt.Errorf("redis-server is not ready: %w", err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// Start adds a stream to the user's set unless the set is full.
func (r *redisLimiter) Start(ctx context.Context, user string, req lease.Request) (lease.Started, error) {
	at, id := time.Now(), randomID()
	n, err := acquireScript.EvalSha(ctx, r.rdb, []string{user}, id, r.cfg.Limit, r.ttlMillis, strings.Join(req.Replaces, "")).Int64() // at most one
	switch {
	case err != nil:
		return lease.Started{}, unavailable("acquire", err)
	case n <= 0:
		return lease.Started{}, r.cfg.limitError(int(-n))
	}
	return r.cfg.started(user, id, int(n), at), nil
}

// Heartbeat sets the stream's expiry.
func (r *redisLimiter) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	return r.renewed(time.Now(), user, id, r.renew(ctx, r.rdb, user, id))
}

func (r *redisLimiter) renew(ctx context.Context, c redis.Scripter, user, id string) *redis.Cmd {
	return renewScript.EvalSha(ctx, c, []string{user}, id, r.ttlMillis)
}

// renewed is the answer to a heartbeat that was sent at at.
func (r *redisLimiter) renewed(at time.Time, user, id string, reply *redis.Cmd) (lease.Stream, error) {
	n, err := reply.Int64()
	switch {
	case err != nil:
		return lease.Stream{}, unavailable("heartbeat", err)
	case n == 0:
		return lease.Stream{}, endedError()
	}
	return r.cfg.stream(user, id, at), nil
}

// Heartbeats sends all heartbeats in one pipeline.
func (r *redisLimiter) Heartbeats(ctx context.Context, heartbeats []lease.HeartbeatRequest) []lease.HeartbeatResult {
	at, pipeline := time.Now(), r.rdb.Pipeline()
	replies := make([]*redis.Cmd, len(heartbeats))
	for i, b := range heartbeats {
		replies[i] = r.renew(ctx, pipeline, b.User, b.ID)
	}
	_, _ = pipeline.Exec(ctx) // each reply has its error
	out := make([]lease.HeartbeatResult, len(heartbeats))
	for i, b := range heartbeats {
		out[i] = lease.NewHeartbeatResult(r.renewed(at, b.User, b.ID, replies[i]))
	}
	return out
}

// Stop removes a stream from the user's set.
func (r *redisLimiter) Stop(ctx context.Context, user, id string) (lease.Usage, error) {
	n, err := releaseScript.EvalSha(ctx, r.rdb, []string{user}, id).Int64()
	switch {
	case err != nil:
		return lease.Usage{}, unavailable("release", err)
	case n < 0:
		return lease.Usage{}, endedError()
	}
	return r.cfg.usage(user, int(n)), nil
}

// List counts the user's streams.
func (r *redisLimiter) List(ctx context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	n, err := countScript.EvalSha(ctx, r.rdb, []string{user}).Int64()
	switch {
	case err != nil:
		return lease.Usage{}, unavailable("count", err)
	case n == 0:
		return lease.Usage{}, lease.ErrNoStreams
	}
	return r.cfg.usage(user, int(n)), nil
}
