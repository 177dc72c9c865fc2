package torture

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// epoch is when the test began. All times of a history are monotonic and since
// then.
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// sinceEpoch places a time that a node told on the same scale: nodes and test
// share a machine and so a wall clock.
func sinceEpoch(t time.Time) time.Duration { return t.Sub(epoch.Round(0)) }

// A kind is what a client asked for.
type kind string

const (
	kindStart    kind = "start"
	kindBeat     kind = "heartbeat"
	kindStop     kind = "stop"
	kindQuietest kind = "stop without id"
	kindRemove   kind = "remove"
	kindList     kind = "list"
	kindLook     kind = "bounded list" // what the node knows, which may be a little old
	kindLimit    kind = "set limit"    // Limit -1 takes it away
	kindPlan     kind = "set plan"
	kindForeign  kind = "foreign id"
	kindVanish   kind = "vanish" // no client's: a stream ends by itself
)

// An op is one request and its answer.
type op struct {
	N    int
	Kind kind
	User string
	Node int

	// What was asked.
	Stream   int    `json:",omitempty"` // the start of the stream that is meant
	Session  string `json:",omitempty"`
	Replaces int    `json:",omitempty"` // the start of the stream to be replaced
	Evict    bool   `json:",omitempty"`
	Limit    int    `json:",omitempty"`
	Plan     string `json:",omitempty"`
	Hung     bool   `json:",omitempty"` // the client hung up

	Call, Return time.Duration

	// What came back.
	Status   int           // 0 for no answer
	Count    int           `json:",omitempty"` // of streams
	Shown    int           `json:",omitempty"` // the limit in a refusal
	Active   []int         `json:",omitempty"` // the starts of the streams listed
	Reason   string        `json:",omitempty"`
	Degraded bool          `json:",omitempty"`
	Expires  time.Duration `json:",omitempty"` // 0 if not told
	ClockSet bool          `json:",omitempty"` // meanwhile: Expires may be by the old time or by the new one
	Nonce    string        `json:",omitempty"` // of the stream that was started, out of its id
	Text     string        `json:",omitempty"` // of an answer that no client should get
}

// unknown reports whether the client cannot tell what became of it.
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
		{"limit", o.Kind == kindLimit || o.Kind == kindPlan, o.Limit}, {"hung up", o.Hung, ""},
	} {
		if part.is {
			fmt.Fprintf(&b, " %s %v", part.name, part.val)
		}
	}
	fmt.Fprintf(&b, " on node%d at %.3f-%.3f: %d", o.Node, o.Call.Seconds(), o.Return.Seconds(), o.Status)
	switch {
	case o.unknown():
	case o.Kind == kindList || o.Kind == kindLook || o.Status == 403:
		fmt.Fprintf(&b, " streams %v limit %d", o.Active, o.Shown)
	case o.Status == 410:
		fmt.Fprintf(&b, " %s", o.Reason)
	case o.Kind != kindBeat:
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

// A history is everything that clients asked in one round.
type history struct {
	mu   sync.Mutex
	ops  []*op
	lost []string // answers that no client should get
}

// numbers are given to operations across rounds, so that no two streams are
// alike.
var numbers atomic.Int64

func (h *history) add(o *op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
	if o.Text != "" {
		h.lost = append(h.lost, fmt.Sprintf("%v: %s", o, o.Text))
	}
}

// A window is a time in which something was broken.
type window struct {
	Name     string
	From, To time.Duration
	Etcd     bool  // leases may live longer, and etcd may not answer
	Nodes    []int // of whom work may come late
}
