//go:build linux

package torture

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/testing/limitcheck"
)

// epoch is the start of the test. All times of a history are monotonic and relative to it.
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// sinceEpoch converts a time in an answer of a node to the times of the history. The nodes and
// the test run on one machine and share its wall clock.
func sinceEpoch(t time.Time) time.Duration { return t.Sub(epoch.Round(0)) }

// A kind is the kind of an operation.
type kind string

const (
	kindStart          kind = "start"
	kindHeartbeat      kind = "heartbeat"
	kindStop           kind = "stop"
	kindStopAny        kind = "stop without id" // the node chooses the stream
	kindRemove         kind = "remove"
	kindList           kind = "list"
	kindBoundedList    kind = "bounded list" // from the replica of the node, which may be up to 3 s old
	kindLimit          kind = "set limit"    // Limit -1 deletes it
	kindPlan           kind = "set plan"
	kindSeveral        kind = "set several limits" // the plan or the override of a user with several limits
	kindForeign        kind = "foreign id"
	kindUnrequestedEnd kind = "unrequested end" // not sent by a client: a lease ended, or a node stopped the stream itself
)

// An op is one request and its answer.
type op struct {
	N    int
	Kind kind
	User string
	Node int

	// The request.
	Stream       int    `json:",omitempty"` // the number of the start of the stream
	Session      string `json:",omitempty"`
	Replaces     int    `json:",omitempty"` // the number of the start of the stream to replace
	Evict        bool   `json:",omitempty"`
	Limit        int    `json:",omitempty"`
	Plan         string `json:",omitempty"`
	Disconnected bool   `json:",omitempty"` // the client closed the connection
	Batch        bool   `json:",omitempty"` // it was one of several heartbeats in a request

	Attributes *limitcheck.Attributes `json:",omitempty"` // of a start under several limits

	Call, Return time.Duration

	// The answer.
	Status   int           // 0 for no answer
	Count    int           `json:",omitempty"` // number of streams
	Shown    int           `json:",omitempty"` // the limit in a refusal
	Active   []int         `json:",omitempty"` // the numbers of the starts of the streams in a list
	Reason   string        `json:",omitempty"`
	Degraded bool          `json:",omitempty"`
	Expires  time.Duration `json:",omitempty"` // 0 if not in the answer
	ClockSet bool          `json:",omitempty"` // while the call was under way: Expires may be by the old time or by the new one
	Nonce    string        `json:",omitempty"` // of the new stream, from its id
	Text     string        `json:",omitempty"` // body of an unexpected answer
}

// unknown reports whether the outcome of the operation is unknown to the client.
func (o *op) unknown() bool { return o.Status == 0 || o.Status >= 500 }

func (o *op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d %s %s", o.N, o.Kind, o.User)
	for _, part := range []struct {
		name string
		is   bool
		val  any
	}{
		{"stream", o.Stream != 0, o.Stream}, {"session", o.Session != "", o.Session},
		{"replaces", o.Replaces != 0, o.Replaces}, {"evict", o.Evict, ""}, {"plan", o.Plan != "", o.Plan},
		{"limit", o.Kind == kindLimit || o.Kind == kindPlan, o.Limit}, {"disconnected", o.Disconnected, ""},
		{"in a batch", o.Batch, ""}, {"attributes", o.Attributes != nil, o.Attributes},
	} {
		if part.is {
			fmt.Fprintf(&b, " %s %v", part.name, part.val)
		}
	}
	fmt.Fprintf(&b, " on node%d at %.3f-%.3f: %d", o.Node, o.Call.Seconds(), o.Return.Seconds(), o.Status)
	switch {
	case o.unknown():
	case o.Kind == kindList || o.Kind == kindBoundedList || o.Status == 403:
		fmt.Fprintf(&b, " streams %v limit %d", o.Active, o.Shown)
	case o.Status == 410:
		fmt.Fprintf(&b, " %s", o.Reason)
	case o.Kind != kindHeartbeat:
		fmt.Fprintf(&b, " streams %d", o.Count)
	}
	if o.Expires != 0 {
		fmt.Fprintf(&b, " expires %.3f", o.Expires.Seconds())
	}
	if o.ClockSet {
		b.WriteString(" while the clock was set")
	}
	if o.Degraded {
		b.WriteString(" degraded")
	}
	return b.String()
}

// A history has all operations of clients in one round.
type history struct {
	mu         sync.Mutex
	ops        []*op
	unexpected []string // unexpected answers
}

// opNumbers numbers the operations of all rounds, so that each stream has a unique number.
var opNumbers atomic.Int64

func (h *history) add(o *op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
	if o.Text != "" {
		h.unexpected = append(h.unexpected, fmt.Sprintf("%v: %s", o, o.Text))
	}
}

// A window is a period with faults.
type window struct {
	Name     string
	From, To time.Duration
	Etcd     bool  // leases may live longer than their TTL, and etcd may not answer
	Nodes    []int // nodes that may finish work late
}
