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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fake is a limiter in memory that answers as a streamcount server does,
// except for the sin that a test has it commit.
type fake struct {
	limit int
	ttl   time.Duration
	sin   string

	mu      sync.Mutex
	calls   int                             // of the sinful kind
	ids     int                             // given out
	streams map[string]map[string]time.Time // by user: when each lapses
}

func newFake(t *testing.T, sin string) (*fake, string) {
	t.Helper()
	f := &fake{limit: 3, ttl: time.Second, sin: sin, streams: map[string]map[string]time.Time{}}
	r := mux.NewRouter()
	const base = "/api/v1/streams/users/{user}"
	r.HandleFunc(base, f.list).Methods("GET")
	r.HandleFunc(base+"/start", f.start).Methods("POST")
	r.HandleFunc(base+"/streams/{id}/stop", f.stop).Methods("POST")
	r.HandleFunc(base+"/streams/{id}/heartbeat", f.beat).Methods("POST")
	r.HandleFunc("/api/v1/streams/heartbeats", f.beats).Methods("POST")
	r.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { say(w, "ready") })
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		r.ServeHTTP(w, req)
	}))
	t.Cleanup(func() { srv.Close(); http.DefaultClient.CloseIdleConnections() })
	return f, srv.URL
}

// say answers. Whoever hung up hears nothing.
func say(w http.ResponseWriter, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// sins reports whether this call is one in ten that commit the sin. The first
// are virtuous, because a benchmark begins with a look at the target.
func (f *fake) sins(sin string) bool {
	if f.sin != sin {
		return false
	}
	f.calls++
	return f.calls > 5 && f.calls%10 == 0
}

// alive are the user's streams that have not lapsed.
func (f *fake) alive(user string) map[string]time.Time {
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

func (f *fake) start(w http.ResponseWriter, r *http.Request) {
	user := mux.Vars(r)["user"]
	held := f.alive(user)
	var body struct{ Replaces string }
	_ = json.NewDecoder(r.Body).Decode(&body) // there may be none
	delete(held, body.Replaces)
	switch {
	case f.sins("500"):
		http.Error(w, "oops", http.StatusInternalServerError)
		return
	case f.sins("503"):
		http.Error(w, "later", http.StatusServiceUnavailable)
		return
	case f.sins("hangs up"):
		panic(http.ErrAbortHandler)
	case f.sins("no json"):
		say(w, "<p>welcome")
		return
	case f.sins("refuses"), len(held) >= f.limit && !f.sins("admits"):
		http.Error(w, `{"title":"Maximum number of streams reached"}`, http.StatusForbidden)
		return
	}
	f.ids++
	id := fmt.Sprintf("id-%d", f.ids)
	held[id] = time.Now().Add(f.ttl)
	if f.sins("forgets") {
		delete(held, id)
	}
	f.answer(w, user, fmt.Sprintf(`,"stream":{"id":%q,"ttlSeconds":%d}`, id, int(f.ttl.Seconds())))
}

func (f *fake) answer(w http.ResponseWriter, user, more string) {
	say(w, `{"userId":%q,"streams":%d,"limit":%d%s}`, user, len(f.alive(user)), f.limit, more)
}

func (f *fake) stop(w http.ResponseWriter, r *http.Request) {
	user, id := mux.Vars(r)["user"], mux.Vars(r)["id"]
	if _, ok := f.alive(user)[id]; !ok {
		http.Error(w, "gone", http.StatusGone)
		return
	}
	if !f.sins("keeps") {
		delete(f.streams[user], id)
	}
	f.answer(w, user, "")
}

func (f *fake) beat(w http.ResponseWriter, r *http.Request) {
	if !f.renew(mux.Vars(r)["user"], mux.Vars(r)["id"]) {
		http.Error(w, "gone", http.StatusGone)
		return
	}
	if f.sins("degraded") {
		say(w, `{"id":"x","degraded":true}`)
		return
	}
	say(w, `{"id":"x"}`)
}

func (f *fake) renew(user, id string) bool {
	if _, ok := f.alive(user)[id]; !ok || f.sins("drops") {
		delete(f.streams[user], id)
		return false
	}
	f.streams[user][id] = time.Now().Add(f.ttl)
	return true
}

func (f *fake) beats(w http.ResponseWriter, r *http.Request) {
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
	say(w, `{"alive":%d,"ended":[%s]}`, len(body.Heartbeats)-len(ended), strings.Join(ended, ","))
}

func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	user := mux.Vars(r)["user"]
	if len(f.alive(user)) == 0 {
		http.Error(w, "User not found", http.StatusNotFound)
		return
	}
	f.answer(w, user, "")
}

// small are settings with which a scenario takes part of a second.
func small(t *testing.T, name string) Config {
	t.Helper()
	s, err := Find(name)
	require.NoError(t, err)
	set := s.Defaults
	set.Runs, set.Connections, set.Warmup = 1, 8, min(set.Warmup, 20*time.Millisecond)
	if name == "overload" { // goes by how much was done then
		set.Warmup = time.Second
	}
	set.For, set.Over = min(set.For, 300*time.Millisecond), min(set.Over, 200*time.Millisecond)
	set.Users, set.Viewers, set.Others = min(set.Users, 50), min(set.Viewers, 60), min(set.Others, 100)
	set.Heartbeat, set.Session = min(set.Heartbeat, 100*time.Millisecond), min(set.Session, time.Second)
	return Config{Scenario: s, Settings: set, Launch: Launch{Dir: t.TempDir()}}
}
