package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"streamcount/internal/bench/load"
)

// An outcome is what became of a call, as far as scenarios tell apart. Whatever
// is neither of these has been counted as a fault.
type outcome int

const (
	failed  outcome = iota // no answer, or one that should not be
	done                   // 200
	full                   // 403: the user is at the limit
	gone                   // 404 or 410
	swamped                // 503 or 429
)

// maxBatch is how many heartbeats one request takes.
const maxBatch = 1000

// A caller makes calls on one connection, for one goroutine.
type caller struct {
	v    *visit
	conn *load.Conn
	path []byte // reused
	body []byte // reused
}

// callers opens n connections; the function returned closes them.
func (v *visit) callers(ctx context.Context, n int) ([]*caller, func()) {
	ctx, cancel := context.WithCancel(ctx)
	list := make([]*caller, n)
	for i := range list {
		list[i] = &caller{v: v, conn: v.client.Conn(ctx)}
	}
	return list, func() {
		cancel()
		for _, c := range list {
			c.conn.Close()
		}
	}
}

const usersPath = "/api/v1/streams/users/"

// userPath begins c.path with the path of a user.
func (c *caller) userPath(user int64) []byte {
	return c.v.appendUser(append(c.path[:0], usersPath...), user)
}

// appendUser appends the id of a user of this visit alone.
func (v *visit) appendUser(b []byte, user int64) []byte {
	b = append(append(b, v.space...), '-')
	return strconv.AppendInt(b, user, 10)
}

func (c *caller) streamPath(user int64, id []byte, verb string) {
	b := append(c.userPath(user), "/streams/"...)
	c.path = append(append(b, id...), verb...)
}

// do makes the call that c.path says and sorts its answer.
func (c *caller) do(method string, body []byte) (load.Answer, outcome) {
	a, err := c.conn.Do(method, c.path, body)
	c.v.answers.Add(1)
	if err != nil {
		if c.v.ctx.Err() == nil { // else it is our own doing
			c.v.tally.failure(err)
		}
		return a, failed
	}
	switch a.Status {
	case http.StatusOK:
		return a, done
	case http.StatusForbidden:
		return a, full
	case http.StatusNotFound, http.StatusGone:
		return a, gone
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		c.v.tally.add(overloaded, 1, "%d: %.200s", a.Status, a.Body)
		return a, swamped
	}
	c.v.tally.add(unexpected, 1, "%s %s: %d: %.200s", method, c.path, a.Status, a.Body)
	return a, failed
}

// start starts a stream, in place of another if replaces is one's id. The id
// is valid until the next call.
func (c *caller) start(user int64, replaces []byte) (id []byte, o outcome) {
	c.path = append(c.userPath(user), "/start"...)
	var body []byte
	if len(replaces) > 0 {
		body = append(append(append(c.body[:0], `{"replaces":"`...), replaces...), `"}`...)
		c.body = body
	}
	a, o := c.do(http.MethodPost, body)
	if o == gone {
		c.v.tally.add(unexpected, 1, "a start was answered %d: %.200s", a.Status, a.Body)
		return nil, failed
	}
	if o != done {
		return nil, o
	}
	id, okID := load.Text(a.Body, `"id":`)
	streams, okStreams := load.Number(a.Body, `"streams":`)
	if !okID || !okStreams || len(id) == 0 || len(id) > idSize {
		c.v.tally.add(malformed, 1, "start: %.200q", a.Body)
		return nil, failed
	}
	c.checkCount(user, streams)
	return id, done
}

// checkCount holds the count in an answer to the limit.
func (c *caller) checkCount(user int64, streams int) {
	if c.v.counts && streams > c.v.limit {
		c.v.tally.add(overLimit, 1, "%s has %d streams, the limit is %d",
			c.v.appendUser(nil, user), streams, c.v.limit)
	}
}

// stop ends a stream.
func (c *caller) stop(user int64, id []byte) outcome {
	c.streamPath(user, id, "/stop")
	a, o := c.do(http.MethodPost, nil)
	return c.notFull(a, o)
}

// beat renews a stream, unless the answer is degraded: the target could not
// find out, and the player goes on. It is not a fault here that the stream is
// gone.
func (c *caller) beat(user int64, id []byte) (o outcome, renewed bool) {
	c.streamPath(user, id, "/heartbeat")
	a, o := c.do(http.MethodPost, nil)
	if o == done && bytes.Contains(a.Body, []byte(`"degraded":true`)) {
		c.v.tally.add(degraded, 1, "%.200s", a.Body)
		return done, false
	}
	return c.notFull(a, o), o == done
}

func (c *caller) notFull(a load.Answer, o outcome) outcome {
	if o == full {
		c.v.tally.add(unexpected, 1, "%s: %d: %.200s", c.path, a.Status, a.Body)
		return failed
	}
	return o
}

// count lists a user and returns how many streams the user has.
func (c *caller) count(user int64) (int, outcome) {
	c.path = c.userPath(user)
	a, o := c.do(http.MethodGet, nil)
	if o == gone {
		return 0, done // a user without streams does not exist
	}
	if o = c.notFull(a, o); o != done {
		return 0, o
	}
	streams, ok := load.Number(a.Body, `"streams":`)
	if !ok {
		c.v.tally.add(malformed, 1, "list: %.200q", a.Body)
		return 0, failed
	}
	c.checkCount(user, streams)
	return streams, done
}

// beats renews viewers in one request and returns those that are gone, with
// the reason that the server gives, and whether it renewed all others.
func (c *caller) beats(vs *viewers, list []int64) (ended map[int64]string, o outcome, renewed bool) {
	c.path = append(c.path[:0], "/api/v1/streams/heartbeats"...)
	b := append(c.body[:0], `{"heartbeats":[`...)
	for i, k := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"userId":"`...)
		b = c.v.appendUser(b, vs.user(k))
		b = append(b, `","streamId":"`...)
		b = append(append(b, vs.id(k)...), `"}`...)
	}
	c.body = append(b, "]}"...)
	a, o := c.do(http.MethodPost, c.body)
	if o == gone {
		c.v.tally.add(unexpected, 1, "%s: %d: %.200s", c.path, a.Status, a.Body)
		return nil, failed, false
	}
	if o != done {
		return nil, c.notFull(a, o), false
	}
	n, _ := load.Number(a.Body, `"degraded":`) // absent for none
	c.v.tally.add(degraded, int64(n), "%.200s", a.Body)
	if bytes.Contains(a.Body, []byte(`"ended":[]`)) {
		return nil, done, n == 0
	}
	ended, ok := endedOf(a.Body, vs, list)
	if !ok {
		c.v.tally.add(malformed, 1, "heartbeats: %.200q", a.Body)
		return nil, failed, false
	}
	return ended, done, n == 0
}

// endedOf reads which viewers of list are gone, and why.
func endedOf(body []byte, vs *viewers, list []int64) (map[int64]string, bool) {
	var answer struct {
		Ended []struct{ StreamID, Reason string }
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Ended == nil {
		return nil, false
	}
	reasons := make(map[string]string)
	for _, e := range answer.Ended {
		reasons[e.StreamID] = e.Reason
	}
	ended := make(map[int64]string)
	for _, k := range list {
		if reason, ok := reasons[string(vs.id(k))]; ok {
			ended[k] = reason
		}
	}
	return ended, true
}

// learn asks a server for its limit and TTL by starting a stream and stopping
// it.
func (c *caller) learn(user int64) (limit int, ttl time.Duration, ok bool) {
	c.path = append(c.userPath(user), "/start"...)
	a, o := c.do(http.MethodPost, nil)
	if o != done {
		return 0, 0, false
	}
	limit, okLimit := load.Number(a.Body, `"limit":`)
	seconds, okTTL := load.Number(a.Body, `"ttlSeconds":`)
	id, okID := load.Text(a.Body, `"id":`)
	if !okLimit || !okTTL || !okID || seconds == 0 {
		return 0, 0, false
	}
	return limit, time.Duration(seconds) * time.Second, c.stop(user, bytes.Clone(id)) == done
}
