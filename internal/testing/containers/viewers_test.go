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

// viewers are clients that start and stop streams through all nodes and the load balancer.
// Some keep one stream alive all the time.
type viewers struct {
	t      *testing.T
	urls   []string // of the nodes and the load balancer
	client http.Client

	mu     sync.Mutex
	counts startCounts // since the last reset
	last   time.Time   // of the last answered start
	ends   []string    // streams that ended without a stop
}

// startCounts counts starts by their outcome.
type startCounts struct {
	admitted, refused int
	failed            map[int]int   // by status: 5xx
	unanswered        int           // no address answered
	failures          []failure     // of starts that were answered 5xx
	longest           time.Duration // without an answered start
}

type failure struct {
	at  time.Time
	why string
}

const (
	keeperCount  = 40
	starterCount = 24
	sharedUsers  = 30 // users of the starters, few enough to reach their limit
)

func newViewers(t *testing.T, urls ...string) *viewers {
	t.Helper()
	c := &viewers{t: t, urls: urls, client: http.Client{Timeout: 8 * time.Second}}
	c.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(c.client.CloseIdleConnections)
	c.reset()
	return c
}

// reset returns the counts since the last reset.
func (c *viewers) reset() startCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.counts
	old.longest = max(old.longest, time.Since(c.last))
	c.counts, c.last = startCounts{failed: map[int]int{}}, time.Now()
	return old
}

// post sends a request to one address after the other until one answers. All requests may be
// repeated. With retry5xx it also continues after an answer 5xx.
func (c *viewers) post(path, body string, retry5xx bool) (status int, answer []byte) {
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
			continue // the node is not ready yet: a load balancer would not use it
		}
		if !retry5xx || status < 500 {
			return status, answer
		}
	}
	return status, answer
}

func (c *viewers) start(user string) (id string) {
	// Because of its session, a start that is repeated takes over its own stream.
	status, body := c.post("/api/v1/streams/users/"+user+"/start", fmt.Sprintf(`{"session":"%x"}`, rand.Uint64()), false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if status == 200 || status == 403 {
		c.counts.longest = max(c.counts.longest, time.Since(c.last))
		c.last = time.Now()
	}
	switch {
	case status == 200:
		c.counts.admitted++
	case status == 403:
		c.counts.refused++
	case status >= 500:
		c.counts.failed[status]++
		c.counts.failures = append(c.counts.failures, failure{time.Now(), fmt.Sprintf("%d %s", status, body)})
	case status == 0:
		c.counts.unanswered++
	default:
		c.t.Errorf("start answered %d: %s", status, body)
	}
	var st struct{ Stream struct{ ID string } }
	if status == 200 && assert.NoError(c.t, json.Unmarshal(body, &st)) {
		return st.Stream.ID
	}
	return ""
}

// starter starts a stream of a random user, and stops it after a moment, until ctx ends.
func (c *viewers) starter(ctx context.Context) {
	for ctx.Err() == nil {
		user := fmt.Sprint("shared-", rand.IntN(sharedUsers))
		if id := c.start(user); id != "" {
			wait(ctx, time.Duration(rand.IntN(100))*time.Millisecond)
			c.post("/api/v1/streams/users/"+user+"/streams/"+id+"/stop", "", true)
		} else {
			wait(ctx, 20*time.Millisecond)
		}
	}
}

// keeper keeps one stream alive until ctx ends.
func (c *viewers) keeper(ctx context.Context, user string) {
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

// replayHistory replays every revision from first on. It returns the maximum number of streams
// of a user, that user, and the number of revisions.
func replayHistory(t *testing.T, c *clientv3.Client, first int64) (maxStreams, revisions int, who string) {
	t.Helper()
	const users = "/streamcount/users/"
	now, err := c.Get(t.Context(), users, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	streams := map[string]map[string]bool{}
	apply := func(e *mvccpb.Event) {
		path := strings.TrimPrefix(string(e.Kv.Key), users)
		user, slot, _ := strings.Cut(path, "/")
		if streams[user] == nil {
			streams[user] = map[string]bool{}
		}
		if e.Type == mvccpb.Event_PUT {
			streams[user][slot] = true
		} else {
			delete(streams[user], slot)
		}
	}
	at := int64(0)
	countRevision := func() { // called at the end of each revision
		revisions++
		for user, slots := range streams {
			if len(slots) > maxStreams {
				maxStreams, who = len(slots), user
			}
		}
	}
	events := c.Watch(ctx, users, clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithProgressNotify())
	for resp := range events {
		require.NoError(t, resp.Err())
		for _, e := range resp.Events {
			if at != 0 && e.Kv.ModRevision != at {
				countRevision()
			}
			at = e.Kv.ModRevision
			apply(e)
		}
		// The revision of an answer with events may be ahead of events to come.
		if resp.IsProgressNotify() && resp.Header.Revision >= now.Header.Revision {
			countRevision()
			return maxStreams, revisions, who
		}
		require.NoError(t, c.RequestProgress(ctx))
	}
	require.Fail(t, "the watch ended")
	return 0, 0, ""
}
