package peer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
)

// plainService is the service that a team writes for one purpose, without streamcount's
// API code: a router, one handler per call, encoding/json, and a Redis script per
// handler over go-redis' connection pool.
type plainService struct {
	cfg Config
	rdb *redis.Client
}

const (
	plainMaxBody  = 1 << 20
	plainMaxBatch = 1000
)

// servePlain runs the plain service until ctx ends or Redis exits.
func servePlain(ctx context.Context, cfg Config, ln net.Listener, ready func()) (err error) {
	client, died, stop, err := startRedis(ctx, cfg, &redis.Options{})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer func() { err = errors.Join(err, stop()) }()
	p := &plainService{cfg: cfg, rdb: client}
	srv := &http.Server{Handler: p.routes(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	ready()
	select {
	case err = <-served:
		return fmt.Errorf("serve: %w", err)
	case err = <-died:
		err = fmt.Errorf("the peer %s failed: %w", cfg.Name, err)
	case <-ctx.Done():
	}
	_ = srv.Close() // no call in flight needs its answer
	if closed := <-served; err == nil && !errors.Is(closed, http.ErrServerClosed) {
		err = closed
	}
	return err
}

func (p *plainService) routes() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
		collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/(cpu/classes/|gc/heap/live:)`)})))
	const user = "/api/v1/streams/users/{user}"
	r := mux.NewRouter()
	r.HandleFunc(user, p.list).Methods(http.MethodGet)
	r.HandleFunc(user+"/start", p.start).Methods(http.MethodPost)
	r.HandleFunc(user+"/streams/{id}/stop", p.stop).Methods(http.MethodPost)
	r.HandleFunc(user+"/streams/{id}/heartbeat", p.heartbeat).Methods(http.MethodPost)
	r.HandleFunc("/api/v1/streams/heartbeats", p.heartbeats).Methods(http.MethodPost)
	r.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, http.StatusOK, struct{}{}) })
	r.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return r
}

// plainUser is the answer to a start, a stop and a list.
type plainUser struct {
	UserID  string       `json:"userId"`
	Streams int64        `json:"streams"`
	Limit   int          `json:"limit"`
	Stream  *plainStream `json:"stream,omitempty"`
}

type plainStream struct {
	ID               string     `json:"id"`
	StartedAt        *time.Time `json:"startedAt,omitempty"`
	ExpiresAt        time.Time  `json:"expiresAt"`
	TTLSeconds       int        `json:"ttlSeconds"`
	HeartbeatSeconds int        `json:"heartbeatSeconds"`
	Region           string     `json:"region"`
}

type plainProblem struct {
	Title  string `json:"title"`
	Error  string `json:"error"`
	Status int    `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// answer writes body as JSON.
func (p *plainService) answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // an error means that the client has disconnected
}

func (p *plainService) fail(w http.ResponseWriter, status int, title, reason string) {
	p.answer(w, status, plainProblem{title, title, status, reason})
}

// unavailable answers a call that Redis did not answer.
func (p *plainService) unavailable(w http.ResponseWriter, doing string, err error) {
	p.cfg.Log.Warn("Redis did not answer", "doing", doing, slog.Any("err", err))
	p.fail(w, http.StatusServiceUnavailable, "Service unavailable", "")
}

func (p *plainService) answerUser(w http.ResponseWriter, user string, streams int64, started *plainStream) {
	p.answer(w, http.StatusOK, plainUser{UserID: user, Streams: streams, Limit: p.cfg.Limit, Stream: started})
}

func (p *plainService) stream(id string, now time.Time) plainStream {
	ttl := int(p.cfg.TTL / time.Second)
	return plainStream{ID: id, ExpiresAt: now.Add(p.cfg.TTL), TTLSeconds: ttl, HeartbeatSeconds: ttl / 3, Region: region}
}

func (p *plainService) start(w http.ResponseWriter, r *http.Request) {
	user := mux.Vars(r)["user"]
	var body struct {
		Replaces string `json:"replaces"`
	}
	if r.ContentLength != 0 {
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, plainMaxBody)).Decode(&body); err != nil {
			p.fail(w, http.StatusBadRequest, "Malformed body", "")
			return
		}
	}
	now, id := time.Now().UTC(), randomID()
	n, err := acquireScript.Run(r.Context(), p.rdb, []string{user}, id, p.cfg.Limit, p.cfg.TTL.Milliseconds(), body.Replaces).Int64()
	switch {
	case err != nil:
		p.unavailable(w, "start", err)
	case n <= 0:
		p.fail(w, http.StatusForbidden, "Maximum number of streams reached", "")
	default:
		started := p.stream(id, now)
		started.StartedAt = &now
		p.answerUser(w, user, n, &started)
	}
}

func (p *plainService) stop(w http.ResponseWriter, r *http.Request) {
	user, id := mux.Vars(r)["user"], mux.Vars(r)["id"]
	n, err := releaseScript.Run(r.Context(), p.rdb, []string{user}, id).Int64()
	switch {
	case err != nil:
		p.unavailable(w, "stop", err)
	case n < 0:
		p.fail(w, http.StatusGone, "The stream has ended", "ended")
	default:
		p.answerUser(w, user, n, nil)
	}
}

func (p *plainService) heartbeat(w http.ResponseWriter, r *http.Request) {
	user, id := mux.Vars(r)["user"], mux.Vars(r)["id"]
	now := time.Now().UTC()
	n, err := renewScript.Run(r.Context(), p.rdb, []string{user}, id, p.cfg.TTL.Milliseconds()).Int64()
	switch {
	case err != nil:
		p.unavailable(w, "heartbeat", err)
	case n == 0:
		p.fail(w, http.StatusGone, "The stream has ended", "ended")
	default:
		p.answer(w, http.StatusOK, p.stream(id, now))
	}
}

// plainHeartbeat is a heartbeat of a batch, and with a reason one whose stream has ended.
type plainHeartbeat struct {
	UserID   string `json:"userId"`
	StreamID string `json:"streamId"`
	Reason   string `json:"reason,omitempty"`
}

// heartbeats sends the heartbeats of a batch to Redis in one pipeline.
func (p *plainService) heartbeats(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Heartbeats []plainHeartbeat `json:"heartbeats"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, plainMaxBody)).Decode(&body)
	if n := len(body.Heartbeats); err != nil || n == 0 || n > plainMaxBatch {
		p.fail(w, http.StatusBadRequest, "Malformed body", "")
		return
	}
	pipeline := p.rdb.Pipeline()
	replies := make([]*redis.Cmd, len(body.Heartbeats))
	for i, b := range body.Heartbeats {
		replies[i] = renewScript.EvalSha(r.Context(), pipeline, []string{b.UserID}, b.StreamID, p.cfg.TTL.Milliseconds())
	}
	_, err = pipeline.Exec(r.Context())
	var answer struct {
		Alive int              `json:"alive"`
		Ended []plainHeartbeat `json:"ended"`
	}
	answer.Ended = []plainHeartbeat{}
	for i, b := range body.Heartbeats {
		n, replyErr := replies[i].Int64()
		switch err = cmp.Or(err, replyErr); {
		case n > 0:
			answer.Alive++
		default:
			b.Reason = "ended"
			answer.Ended = append(answer.Ended, b)
		}
	}
	if err != nil {
		p.unavailable(w, "heartbeats", err)
		return
	}
	p.answer(w, http.StatusOK, answer)
}

func (p *plainService) list(w http.ResponseWriter, r *http.Request) {
	user := mux.Vars(r)["user"]
	n, err := countScript.Run(r.Context(), p.rdb, []string{user}).Int64()
	switch {
	case err != nil:
		p.unavailable(w, "list", err)
	case n == 0:
		p.fail(w, http.StatusNotFound, "User not found", "")
	default:
		p.answerUser(w, user, n, nil)
	}
}
