package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gorilla/mux"

	"streamcount/lease"
)

// discard is a response writer that discards the body.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

func benchHandler(b *testing.B, h http.Handler, method, target, body string) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		var r *http.Request
		if body == "" {
			r = httptest.NewRequest(method, target, http.NoBody)
		} else {
			r = httptest.NewRequest(method, target, bytes.NewReader([]byte(body)))
			r.Header.Set("Content-Type", "application/json")
		}
		r.Header.Set("Host", "localhost")
		h.ServeHTTP(&discard{http.Header{}}, r)
	}
}

// quiet is a fake that answers at once and records no calls.
type quiet struct{ fake }

func (*quiet) Heartbeat(context.Context, string, string) (lease.Stream, error) {
	return someStream(), nil
}

func (*quiet) Start(_ context.Context, user string, _ lease.Request) (lease.Started, error) {
	return lease.Started{Usage: lease.Usage{User: user, Count: 1, Limit: 3}, Stream: someStream()}, nil
}

// BenchmarkHandler measures the HTTP layer: the handler of the service with a limiter that
// answers at once, and an empty handler on a router of the same kind.
func BenchmarkHandler(b *testing.B) {
	s := newServer(b, Config{}, &quiet{}).Handler()
	empty := mux.NewRouter()
	empty.HandleFunc("/api/v1/streams/users/{user}/streams/{id}/heartbeat", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true}`)
	}).Methods(http.MethodPost)
	heartbeat := "/api/v1/streams/users/maya/streams/AQAAcPqVjhFbsDzq3EHzQ1zjU5hGlmVmlfTx7rbrpVrDQ7cUoUuP/heartbeat"
	b.Run("heartbeat", func(b *testing.B) { benchHandler(b, s, "POST", heartbeat, "") })
	b.Run("start", func(b *testing.B) {
		benchHandler(b, s, "POST", "/api/v1/streams/users/maya/start", `{"device":{"id":"tv-1","name":"TV"}}`)
	})
	b.Run("empty", func(b *testing.B) { benchHandler(b, empty, "POST", heartbeat, "") })
}
