//go:build linux

package torture

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"
)

// A stream is one that a client has received in an answer.
type stream struct {
	op      int // the number of its start
	id      string
	user    string
	session string
}

// answer has the members of all answers.
type answer struct {
	Streams   int          `json:"streams"`
	Limit     int          `json:"limit"`
	Stream    *streamJSON  `json:"stream"`
	Active    []streamJSON `json:"active"`
	Reason    string       `json:"reason"`
	Degraded  bool         `json:"degraded"`
	ExpiresAt time.Time    `json:"expiresAt"`
}

type streamJSON struct {
	ID        string    `json:"id"`
	ExpiresAt time.Time `json:"expiresAt"`
	Content   struct {
		Title string `json:"title"`
	} `json:"content"`
}

// A caller sends requests to nodes and records them with their answers.
type caller struct {
	nodes   []*node
	history *history
	http    []*http.Client // one for each node
}

// clientTimeout is how long a client waits for an answer. It is shorter than the time for
// which a node waits for etcd.
const clientTimeout = 2500 * time.Millisecond

func newCaller(nodes []*node, h *history) *caller {
	c := &caller{nodes: nodes, history: h}
	for range nodes {
		c.http = append(c.http, &http.Client{
			Timeout:   clientTimeout,
			Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext},
		})
	}
	return c
}

func (c *caller) close() {
	for _, h := range c.http {
		h.CloseIdleConnections()
	}
}

// request is the HTTP request of an operation.
type request struct {
	method, path, body string
	disconnectAfter    time.Duration // close the connection this long after sending the request; 0 for never
}

// do sends o and records it with its answer. If no connection can be opened, it records
// nothing and returns nil.
func (c *caller) do(ctx context.Context, o *op, r request) *answer {
	a := &answer{}
	body, sent := c.send(ctx, []*op{o}, r, a)
	if !sent {
		return nil
	}
	o.setAnswer(a, body, c.nodes[o.Node].clock)
	c.history.add(o)
	return a
}

// send sends the request of ops to their node. It stores the times and the status in ops,
// and decodes the answer into a. It reports false if no connection can be opened.
func (c *caller) send(ctx context.Context, ops []*op, r request, a any) (body []byte, sent bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.disconnectAfter > 0 {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { time.AfterFunc(r.disconnectAfter, cancel) },
		})
	}
	node := ops[0].Node
	req, err := http.NewRequestWithContext(ctx, r.method, c.nodes[node].url+"/api/v1"+r.path, strings.NewReader(r.body))
	if err != nil {
		panic(err) // the paths are ours
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	call, status := now(), 0
	resp, err := c.http[node].Do(req)
	if err == nil {
		status = resp.StatusCode
		body, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	answered := now()
	if err != nil || json.Unmarshal(body, a) != nil {
		status = 0 // the answer is incomplete
	}
	for _, o := range ops {
		o.N = cmp.Or(o.N, int(opNumbers.Add(1)))
		o.Call, o.Return, o.Status, o.Disconnected = call, answered, status, r.disconnectAfter > 0
	}
	var dial *net.OpError
	return body, !errors.As(err, &dial) || dial.Op != "dial"
}

// setAnswer stores an answer in o. It corrects times by the offset of the node's wall clock.
func (o *op) setAnswer(a *answer, body []byte, wallClock *clock) {
	if o.unknown() {
		if o.Status != 0 && o.Status != 503 {
			o.Text = string(body)
		}
		return
	}
	o.Count, o.Shown, o.Reason, o.Degraded = a.Streams, a.Limit, a.Reason, a.Degraded
	for _, s := range a.Active {
		o.Active = append(o.Active, s.number())
	}
	expires := a.ExpiresAt
	if a.Stream != nil {
		expires = a.Stream.ExpiresAt
		o.Nonce = nonceOf(a.Stream.ID)
	}
	if !expires.IsZero() {
		offset, ok := wallClock.offsetDuring(o.Call, o.Return)
		o.Expires, o.ClockSet = sinceEpoch(expires)-offset, !ok
	}
	if !o.expected() {
		o.Text = string(body)
	}
}

// expected reports whether the API allows such an answer.
func (o *op) expected() bool {
	switch o.Status {
	case 200:
		return o.Kind != kindForeign
	case 403:
		return o.Kind == kindStart
	case 404:
		switch o.Kind {
		case kindForeign, kindStopAny, kindRemove, kindList, kindBoundedList:
			return true
		}
		return o.Kind == kindSeveral || o.Kind == kindLimit && o.Limit < 0
	case 410:
		return o.Kind == kindStop || o.Kind == kindHeartbeat
	}
	return false
}

// final reports whether a client need not repeat the heartbeat.
func (o *op) final() bool {
	return o.Status == 200 && !o.Degraded || o.Status == 410 || o.Status == 404
}

// number returns the number of the start of a stream, which is the title of its content.
func (s streamJSON) number() int {
	n, err := strconv.Atoi(s.Content.Title)
	if err != nil {
		return -1
	}
	return n
}
