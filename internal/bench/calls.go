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

// An outcome is the result of a call. An answer that is not listed here is counted as
// a fault.
type outcome int

const (
	outcomeUnknown  outcome = iota // no answer, or an unexpected one
	outcomeOK                      // 200
	outcomeLimit                   // 403: the user is at the limit
	outcomeGone                    // 404 or 410
	outcomeOverload                // 503 or 429
)

// maxBatch is the maximum number of heartbeats per request.
const maxBatch = 1000

// A caller makes calls on one connection. One goroutine uses it.
type caller struct {
	tr   *targetRun
	conn *load.Conn
	path []byte // reused
	body []byte // reused
}

// callers returns n callers and a function that closes their connections.
func (tr *targetRun) callers(ctx context.Context, n int) ([]*caller, func()) {
	ctx, cancel := context.WithCancel(ctx)
	list := make([]*caller, n)
	for i := range list {
		list[i] = &caller{tr: tr, conn: tr.client.Conn(ctx)}
	}
	return list, func() {
		cancel()
		for _, c := range list {
			c.conn.Close()
		}
	}
}

const usersPath = "/api/v1/streams/users/"

// userPath sets c.path to the path of a user and returns it.
func (c *caller) userPath(user int64) []byte {
	return c.tr.appendUserID(append(c.path[:0], usersPath...), user)
}

// appendUserID appends the id of a user, which no other run uses.
func (tr *targetRun) appendUserID(b []byte, user int64) []byte {
	b = append(append(b, tr.userPrefix...), '-')
	return strconv.AppendInt(b, user, 10)
}

func (c *caller) streamPath(user int64, id []byte, verb string) {
	b := append(c.userPath(user), "/streams/"...)
	c.path = append(append(b, id...), verb...)
}

// do makes a call to c.path and classifies its answer.
func (c *caller) do(method string, body []byte) (load.Answer, outcome) {
	a, err := c.conn.Do(method, c.path, body)
	c.tr.answers.Add(1)
	if err != nil {
		if c.tr.ctx.Err() == nil { // otherwise the run has ended
			c.tr.faults.addCallError(err)
		}
		return a, outcomeUnknown
	}
	switch a.Status {
	case http.StatusOK:
		return a, outcomeOK
	case http.StatusForbidden:
		return a, outcomeLimit
	case http.StatusNotFound, http.StatusGone:
		return a, outcomeGone
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		c.tr.faults.add(faultOverload, 1, "%d: %.200s", a.Status, a.Body)
		return a, outcomeOverload
	}
	c.tr.faults.add(faultUnexpectedStatus, 1, "%s %s: %d: %.200s", method, c.path, a.Status, a.Body)
	return a, outcomeUnknown
}

// start starts a stream, in place of the stream replaces unless that is empty. The
// returned id is valid until the next call.
func (c *caller) start(user int64, replaces []byte) (id []byte, o outcome) {
	c.path = append(c.userPath(user), "/start"...)
	var body []byte
	if len(replaces) > 0 {
		body = append(append(append(c.body[:0], `{"replaces":"`...), replaces...), `"}`...)
		c.body = body
	}
	a, o := c.do(http.MethodPost, body)
	if o == outcomeGone {
		c.tr.faults.add(faultUnexpectedStatus, 1, "a start was answered %d: %.200s", a.Status, a.Body)
		return nil, outcomeUnknown
	}
	if o != outcomeOK {
		return nil, o
	}
	id, okID := load.Text(a.Body, `"id":`)
	streams, okStreams := load.Number(a.Body, `"streams":`)
	if !okID || !okStreams || len(id) == 0 || len(id) > idSize {
		c.tr.faults.add(faultMalformed, 1, "start: %.200q", a.Body)
		return nil, outcomeUnknown
	}
	c.checkCount(user, streams)
	return id, outcomeOK
}

// checkCount checks that the count in an answer is not over the limit.
func (c *caller) checkCount(user int64, streams int) {
	if c.tr.enforcesLimit && streams > c.tr.limit {
		c.tr.faults.add(faultOverLimit, 1, "%s has %d streams, the limit is %d",
			c.tr.appendUserID(nil, user), streams, c.tr.limit)
	}
}

// stop ends a stream.
func (c *caller) stop(user int64, id []byte) outcome {
	c.streamPath(user, id, "/stop")
	a, o := c.do(http.MethodPost, nil)
	return c.rejectLimit(a, o)
}

// heartbeat sends a heartbeat. renewed is false if the answer is degraded, which means
// that the target could not renew the stream and the player continues. An answer that
// the stream is gone is not counted as a fault here.
func (c *caller) heartbeat(user int64, id []byte) (o outcome, renewed bool) {
	c.streamPath(user, id, "/heartbeat")
	a, o := c.do(http.MethodPost, nil)
	if o == outcomeOK && bytes.Contains(a.Body, []byte(`"degraded":true`)) {
		c.tr.faults.add(faultDegraded, 1, "%.200s", a.Body)
		return outcomeOK, false
	}
	return c.rejectLimit(a, o), o == outcomeOK
}

func (c *caller) rejectLimit(a load.Answer, o outcome) outcome {
	if o == outcomeLimit {
		c.tr.faults.add(faultUnexpectedStatus, 1, "%s: %d: %.200s", c.path, a.Status, a.Body)
		return outcomeUnknown
	}
	return o
}

// countStreams returns the number of streams that the user has.
func (c *caller) countStreams(user int64) (int, outcome) {
	c.path = c.userPath(user)
	a, o := c.do(http.MethodGet, nil)
	if o == outcomeGone {
		return 0, outcomeOK // a user without streams does not exist
	}
	if o = c.rejectLimit(a, o); o != outcomeOK {
		return 0, o
	}
	streams, ok := load.Number(a.Body, `"streams":`)
	if !ok {
		c.tr.faults.add(faultMalformed, 1, "list: %.200q", a.Body)
		return 0, outcomeUnknown
	}
	c.checkCount(user, streams)
	return streams, outcomeOK
}

// heartbeats sends the heartbeats of viewers in one request. It returns the viewers
// whose streams are gone, with the reason in the answer, and whether all others were
// renewed.
func (c *caller) heartbeats(vs *viewers, list []int64) (ended map[int64]string, o outcome, renewed bool) {
	c.path = append(c.path[:0], "/api/v1/streams/heartbeats"...)
	b := append(c.body[:0], `{"heartbeats":[`...)
	for i, k := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"userId":"`...)
		b = c.tr.appendUserID(b, vs.user(k))
		b = append(b, `","streamId":"`...)
		b = append(append(b, vs.id(k)...), `"}`...)
	}
	c.body = append(b, "]}"...)
	a, o := c.do(http.MethodPost, c.body)
	if o == outcomeGone {
		c.tr.faults.add(faultUnexpectedStatus, 1, "%s: %d: %.200s", c.path, a.Status, a.Body)
		return nil, outcomeUnknown, false
	}
	if o != outcomeOK {
		return nil, c.rejectLimit(a, o), false
	}
	n, _ := load.Number(a.Body, `"degraded":`) // absent if there are none
	c.tr.faults.add(faultDegraded, int64(n), "%.200s", a.Body)
	if bytes.Contains(a.Body, []byte(`"ended":[]`)) {
		return nil, outcomeOK, n == 0
	}
	ended, ok := endedOf(a.Body, vs, list)
	if !ok {
		c.tr.faults.add(faultMalformed, 1, "heartbeats: %.200q", a.Body)
		return nil, outcomeUnknown, false
	}
	return ended, outcomeOK, n == 0
}

// endedOf returns the viewers of list whose streams are gone, with the reason.
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

// limitAndTTL starts and stops a stream, and returns the limit and the TTL in the
// answer.
func (c *caller) limitAndTTL(user int64) (limit int, ttl time.Duration, ok bool) {
	c.path = append(c.userPath(user), "/start"...)
	a, o := c.do(http.MethodPost, nil)
	if o != outcomeOK {
		return 0, 0, false
	}
	limit, okLimit := load.Number(a.Body, `"limit":`)
	seconds, okTTL := load.Number(a.Body, `"ttlSeconds":`)
	id, okID := load.Text(a.Body, `"id":`)
	if !okLimit || !okTTL || !okID || seconds == 0 {
		return 0, 0, false
	}
	return limit, time.Duration(seconds) * time.Second, c.stop(user, bytes.Clone(id)) == outcomeOK
}
