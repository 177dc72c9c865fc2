package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"streamcount/internal/bench/launch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeServer is a limiter in memory that answers as a streamcount server does, except
// for one defect.
type fakeServer struct {
	limit  int
	ttl    time.Duration
	defect string

	mu      sync.Mutex
	calls   int                             // that the defect could have affected
	ids     int                             // issued
	streams map[string]map[string]time.Time // expiry times, by user and stream id
}

func newFakeServer(t *testing.T, defect string) (*fakeServer, string) {
	t.Helper()
	f := &fakeServer{limit: 3, ttl: time.Minute, defect: defect, streams: map[string]map[string]time.Time{}}
	r := mux.NewRouter()
	const base = "/api/v1/streams/users/{user}"
	r.HandleFunc(base, f.list).Methods("GET")
	r.HandleFunc(base+"/start", f.start).Methods("POST")
	r.HandleFunc(base+"/streams/{id}/stop", f.stop).Methods("POST")
	r.HandleFunc(base+"/streams/{id}/heartbeat", f.heartbeat).Methods("POST")
	r.HandleFunc("/api/v1/streams/heartbeats", f.heartbeats).Methods("POST")
	r.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { reply(w, "ready") })
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		r.ServeHTTP(w, req)
	}))
	t.Cleanup(func() { srv.Close(); http.DefaultClient.CloseIdleConnections() })
	return f, srv.URL
}

// reply writes an answer. An error means that the client has disconnected.
func reply(w http.ResponseWriter, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// hasDefect reports whether the defect affects this call. It affects one call in ten, but
// not the first ones, because a run begins with a handshake.
func (f *fakeServer) hasDefect(defect string) bool {
	if f.defect != defect {
		return false
	}
	f.calls++
	return f.calls > 5 && f.calls%10 == 0
}

// live returns the user's streams that have not expired.
func (f *fakeServer) live(user string) map[string]time.Time {
	m := f.streams[user]
	if m == nil {
		m = map[string]time.Time{}
		f.streams[user] = m
	}
	for id, lapses := range m {
		if time.Now().After(lapses) {
			delete(m, id)
		}
	}
	return m
}

func (f *fakeServer) start(w http.ResponseWriter, r *http.Request) {
	user := mux.Vars(r)["user"]
	streams := f.live(user)
	var body struct{ Replaces string }
	_ = json.NewDecoder(r.Body).Decode(&body) // the body may be empty
	delete(streams, body.Replaces)
	switch {
	case f.hasDefect("500"):
		http.Error(w, "oops", http.StatusInternalServerError)
		return
	case f.hasDefect("503"):
		http.Error(w, "later", http.StatusServiceUnavailable)
		return
	case f.hasDefect("hangs up"):
		panic(http.ErrAbortHandler)
	case f.hasDefect("no json"):
		reply(w, "<p>welcome")
		return
	case f.hasDefect("refuses"), len(streams) >= f.limit && !f.hasDefect("admits"):
		http.Error(w, `{"title":"Maximum number of streams reached"}`, http.StatusForbidden)
		return
	}
	f.ids++
	id := fmt.Sprintf("id-%d", f.ids)
	streams[id] = time.Now().Add(f.ttl)
	if f.hasDefect("forgets") {
		delete(streams, id)
	}
	f.answer(w, user, fmt.Sprintf(`,"stream":{"id":%q,"ttlSeconds":%d}`, id, int(f.ttl.Seconds())))
}

func (f *fakeServer) answer(w http.ResponseWriter, user, more string) {
	reply(w, `{"userId":%q,"streams":%d,"limit":%d%s}`, user, len(f.live(user)), f.limit, more)
}

func (f *fakeServer) stop(w http.ResponseWriter, r *http.Request) {
	user, id := mux.Vars(r)["user"], mux.Vars(r)["id"]
	if _, ok := f.live(user)[id]; !ok {
		http.Error(w, "gone", http.StatusGone)
		return
	}
	if !f.hasDefect("keeps") {
		delete(f.streams[user], id)
	}
	f.answer(w, user, "")
}

func (f *fakeServer) heartbeat(w http.ResponseWriter, r *http.Request) {
	if !f.renew(mux.Vars(r)["user"], mux.Vars(r)["id"]) {
		http.Error(w, "gone", http.StatusGone)
		return
	}
	if f.hasDefect("degraded") {
		reply(w, `{"id":"x","degraded":true}`)
		return
	}
	reply(w, `{"id":"x"}`)
}

func (f *fakeServer) renew(user, id string) bool {
	if _, ok := f.live(user)[id]; !ok || f.hasDefect("drops") {
		delete(f.streams[user], id)
		return false
	}
	f.streams[user][id] = time.Now().Add(f.ttl)
	return true
}

func (f *fakeServer) heartbeats(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Heartbeats []struct{ UserID, StreamID string }
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ended := []string{}
	for _, b := range body.Heartbeats {
		if !f.renew(b.UserID, b.StreamID) {
			ended = append(ended, fmt.Sprintf(`{"userId":%q,"streamId":%q,"reason":"ended"}`, b.UserID, b.StreamID))
		}
	}
	reply(w, `{"alive":%d,"ended":[%s]}`, len(body.Heartbeats)-len(ended), strings.Join(ended, ","))
}

func (f *fakeServer) list(w http.ResponseWriter, r *http.Request) {
	user := mux.Vars(r)["user"]
	if len(f.live(user)) == 0 {
		http.Error(w, "User not found", http.StatusNotFound)
		return
	}
	f.answer(w, user, "")
}

// small returns settings with which a scenario takes less than a second.
func small(t *testing.T, name string) Config {
	t.Helper()
	s, err := Find(name)
	require.NoError(t, err)
	set := s.Defaults
	set.Runs, set.Connections, set.Warmup = 1, 8, min(set.Warmup, 20*time.Millisecond)
	if name == "overload" { // the warm-up determines the rate
		set.Warmup = time.Second
	}
	set.Duration, set.Over = min(set.Duration, 300*time.Millisecond), min(set.Over, 200*time.Millisecond)
	set.Users, set.Viewers, set.OtherStarts = min(set.Users, 50), min(set.Viewers, 60), min(set.OtherStarts, 100)
	set.FillTimeout = min(set.FillTimeout, time.Minute)
	set.Heartbeat, set.Session = min(set.Heartbeat, 100*time.Millisecond), min(set.Session, time.Second)
	return Config{Scenario: s, Settings: set, Launch: launch.Config{Dir: t.TempDir()}}
}
