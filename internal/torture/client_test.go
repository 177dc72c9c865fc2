package torture

import (
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

// A stream is one that a client has been told of.
type stream struct {
	op      int // its start
	id      string
	user    string
	session string
}

// answer is all that an answer may hold.
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

// A caller sends requests to nodes and writes down what happened.
type caller struct {
	nodes   []*node
	history *history
	http    []*http.Client // one for each node
}

// patience is how long a client waits: less than a node does for etcd.
const patience = 2500 * time.Millisecond

func newCaller(nodes []*node, h *history) *caller {
	c := &caller{nodes: nodes, history: h}
	for range nodes {
		c.http = append(c.http, &http.Client{
			Timeout:   patience,
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

// request is what goes over the wire for an operation.
type request struct {
	method, path, body string
	hangUp             time.Duration // after the request has left; 0 for never
}

// do carries o out and records it. An operation that surely never reached a node
// is none. It returns nil then.
func (c *caller) do(ctx context.Context, o *op, r request) *answer {
	o.N = cmpOr(o.N, int(numbers.Add(1)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.hangUp > 0 {
		o.Hung = true
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { time.AfterFunc(r.hangUp, cancel) },
		})
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.nodes[o.Node].url+"/api/v1"+r.path, strings.NewReader(r.body))
	if err != nil {
		panic(err) // the paths are ours
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	o.Call = now()
	resp, err := c.http[o.Node].Do(req)
	var body []byte
	if err == nil {
		o.Status = resp.StatusCode
		body, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	o.Return = now()
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return nil
	}
	a := &answer{}
	if err != nil || json.Unmarshal(body, a) != nil {
		o.Status = 0 // half an answer is none
	}
	o.take(a, body, c.nodes[o.Node].clock)
	c.history.add(o)
	return a
}

func cmpOr(n, otherwise int) int {
	if n != 0 {
		return n
	}
	return otherwise
}

// take notes what an answer says, of a node whose wall clock is off.
func (o *op) take(a *answer, body []byte, off *clock) {
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
		wrong, ok := off.during(o.Call, o.Return)
		o.Expires, o.ClockSet = sinceEpoch(expires)-wrong, !ok
	}
	if !o.expected() {
		o.Text = string(body)
	}
}

// expected reports whether a node may give such an answer.
func (o *op) expected() bool {
	switch o.Status {
	case 200:
		return o.Kind != kindForeign
	case 403:
		return o.Kind == kindStart
	case 404:
		switch o.Kind {
		case kindForeign, kindQuietest, kindRemove, kindList, kindLook:
			return true
		}
		return o.Kind == kindLimit && o.Limit < 0
	case 410:
		return o.Kind == kindStop || o.Kind == kindBeat
	}
	return false
}

// number is the start of a stream as it was told to the service.
func (s streamJSON) number() int {
	n, err := strconv.Atoi(s.Content.Title)
	if err != nil {
		return -1
	}
	return n
}
