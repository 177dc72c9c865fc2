package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A crowd starts and stops streams through all nodes and the load balancer, and
// keeps some alive all the time.
type crowd struct {
	t      *testing.T
	urls   []string // of the nodes and the load balancer
	client http.Client

	mu   sync.Mutex
	then tally // since the last reset
	last time.Time
	ends []string // of streams that nobody stopped
}

// tally is what became of starts.
type tally struct {
	admitted, refused int
	failed            map[int]int // by status: 5xx
	unanswered        int         // by anybody: every address refused or cut the connection
	failures          []failure   // those with a status
	longest           time.Duration
}

type failure struct {
	at  time.Time
	why string
}

const (
	keepers   = 40
	starters  = 24
	someUsers = 30 // whom the starters share, so that they are at their limit
)

func newCrowd(t *testing.T, urls ...string) *crowd {
	t.Helper()
	c := &crowd{t: t, urls: urls, client: http.Client{Timeout: 8 * time.Second}}
	c.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(c.client.CloseIdleConnections)
	c.reset()
	return c
}

// reset returns what has happened since the last reset.
func (c *crowd) reset() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.then
	old.longest = max(old.longest, time.Since(c.last))
	c.then, c.last = tally{failed: map[int]int{}}, time.Now()
	return old
}

// post asks one address after the other until one answers, as a client that knows
// several would. All that it sends may be repeated. With patience an answer
// 5xx is none.
func (c *crowd) post(path, body string, patience bool) (status int, answer []byte) {
	first := rand.IntN(len(c.urls))
	for i := range c.urls {
		url := c.urls[(first+i)%len(c.urls)]
		req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, url+path, strings.NewReader(body))
		if err != nil {
			return 0, nil
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.client.Do(req)
		if err != nil {
			continue
		}
		answer, err = io.ReadAll(resp.Body)
		if resp.Body.Close() != nil || err != nil {
			continue
		}
		status = resp.StatusCode
		if status == 503 && strings.Contains(string(answer), "has not reached") {
			continue // it has just begun, and is not ready: a load balancer would not ask it
		}
		if !patience || status < 500 {
			return status, answer
		}
	}
	return status, answer
}

func (c *crowd) start(user string) (id string) {
	// A start that is repeated under its session is the same start.
	status, body := c.post("/api/v1/streams/users/"+user+"/start", fmt.Sprintf(`{"session":"%x"}`, rand.Uint64()), false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if status == 200 || status == 403 {
		c.then.longest = max(c.then.longest, time.Since(c.last))
		c.last = time.Now()
	}
	switch {
	case status == 200:
		c.then.admitted++
	case status == 403:
		c.then.refused++
	case status >= 500:
		c.then.failed[status]++
		c.then.failures = append(c.then.failures, failure{time.Now(), fmt.Sprintf("%d %s", status, body)})
	case status == 0:
		c.then.unanswered++
	default:
		c.t.Errorf("start answered %d: %s", status, body)
	}
	var st struct{ Stream struct{ ID string } }
	if status == 200 && assert.NoError(c.t, json.Unmarshal(body, &st)) {
		return st.Stream.ID
	}
	return ""
}

// starter starts a stream of any user, watches for a moment, and stops it.
func (c *crowd) starter(ctx context.Context) {
	for ctx.Err() == nil {
		user := fmt.Sprint("some-", rand.IntN(someUsers))
		if id := c.start(user); id != "" {
			wait(ctx, time.Duration(rand.IntN(100))*time.Millisecond)
			c.post("/api/v1/streams/users/"+user+"/streams/"+id+"/stop", "", true)
		} else {
			wait(ctx, 20*time.Millisecond)
		}
	}
}

// keeper watches one stream for as long as ctx.
func (c *crowd) keeper(ctx context.Context, user string) {
	id := ""
	for id == "" && ctx.Err() == nil {
		id = c.start(user)
	}
	for ctx.Err() == nil {
		status, body := c.post("/api/v1/streams/users/"+user+"/streams/"+id+"/heartbeat", "", true)
		if status == 410 || status == 404 {
			c.mu.Lock()
			c.ends = append(c.ends, fmt.Sprintf("%s: %d %s", user, status, body))
			c.mu.Unlock()
			return
		}
		wait(ctx, ttl/5)
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// history replays every revision from first on, and returns the most streams that
// any user ever held, and how many revisions it looked at.
func history(t *testing.T, c *clientv3.Client, first int64) (most, revisions int, who string) {
	t.Helper()
	const users = "/streamcount/users/"
	now, err := c.Get(t.Context(), users, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	held := map[string]map[string]bool{}
	check := func(e *mvccpb.Event) {
		path := strings.TrimPrefix(string(e.Kv.Key), users)
		user, slot, _ := strings.Cut(path, "/")
		if held[user] == nil {
			held[user] = map[string]bool{}
		}
		if e.Type == mvccpb.Event_PUT {
			held[user][slot] = true
		} else {
			delete(held[user], slot)
		}
	}
	at := int64(0)
	look := func() { // at the end of a revision
		revisions++
		for user, slots := range held {
			if len(slots) > most {
				most, who = len(slots), user
			}
		}
	}
	events := c.Watch(ctx, users, clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithProgressNotify())
	for resp := range events {
		require.NoError(t, resp.Err())
		for _, e := range resp.Events {
			if at != 0 && e.Kv.ModRevision != at {
				look()
			}
			at = e.Kv.ModRevision
			check(e)
		}
		// The revision of an answer with events may be ahead of events to come.
		if resp.IsProgressNotify() && resp.Header.Revision >= now.Header.Revision {
			look()
			return most, revisions, who
		}
		require.NoError(t, c.RequestProgress(ctx))
	}
	require.Fail(t, "the watch ended")
	return 0, 0, ""
}
