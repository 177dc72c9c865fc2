package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"streamcount/lease"
)

// someID has the length of streamcount's own ids.
const someID = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// serveNoop answers every call with a constant body of the usual size.
func serveNoop(ctx context.Context, cfg Config, ln net.Listener, ready func()) error {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	stream := fmt.Sprintf(`{"id":%q,"startedAt":%q,"expiresAt":%[2]q,"ttlSeconds":%d,"heartbeatSeconds":%d,"region":"local"}`,
		someID, now, int(cfg.TTL.Seconds()), int(cfg.TTL.Seconds())/3)
	user := fmt.Sprintf(`{"userId":"maya","streams":1,"limit":%d`, cfg.Limit)
	const base = "/api/v1/streams/users/{user}"
	r := mux.NewRouter().SkipClean(true)
	for _, route := range []struct{ method, path, body string }{
		{http.MethodGet, base, user + `,"active":[` + stream + `]}`},
		{http.MethodPost, base + "/start", user + `,"stream":` + stream + `}`},
		{http.MethodPost, base + "/streams/{id}/stop", user + `}`},
		{http.MethodDelete, base + "/streams/{id}", user + `}`},
		{http.MethodPost, base + "/streams/{id}/heartbeat", stream},
		{http.MethodPost, "/api/v1/streams/heartbeats", `{"alive":0,"ended":[]}`},
		{http.MethodGet, "/readyz", `{}`},
	} {
		body := []byte(route.body + "\n")
		r.HandleFunc(route.path, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // errors mean that the client has disconnected
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
		}).Methods(route.method)
	}
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // no call in flight needs its answer
	defer stop()
	ready()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// An emptyLimiter admits every start and has no state.
type emptyLimiter struct {
	unsupported
	cfg Config
}

func openEmpty(_ context.Context, cfg Config) (limiter, <-chan error, func() error, error) {
	return emptyLimiter{cfg: cfg}, nil, func() error { return nil }, nil
}

func (e emptyLimiter) Start(_ context.Context, user string, _ lease.Request) (lease.Started, error) {
	return e.cfg.started(user, someID, 1, time.Now()), nil
}

func (e emptyLimiter) Heartbeat(_ context.Context, user, id string) (lease.Stream, error) {
	return e.cfg.stream(user, id, time.Now()), nil
}

func (e emptyLimiter) Heartbeats(ctx context.Context, heartbeats []lease.HeartbeatRequest) []lease.HeartbeatResult {
	out := make([]lease.HeartbeatResult, len(heartbeats))
	for i, b := range heartbeats {
		out[i] = lease.NewHeartbeatResult(e.Heartbeat(ctx, b.User, b.ID))
	}
	return out
}

func (e emptyLimiter) Stop(_ context.Context, user, _ string) (lease.Usage, error) {
	return e.cfg.usage(user, 0), nil
}

func (e emptyLimiter) List(_ context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	return e.cfg.usage(user, 1), nil
}
