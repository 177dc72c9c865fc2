package ingress

import (
	"net/http"
	"sync/atomic"
	"time"

	"streamcount/api/internal/overload"
)

// pendingTimeout is how long an HTTP/2 response beyond the maximum may wait for its client.
const pendingTimeout = 100 * time.Millisecond

// responses counts the HTTP/2 responses that their clients have not read. An HTTP/2 client
// decides by flow control how much of a response it reads. net/http would hold a response
// for the whole write timeout, each in a goroutine.
type responses struct{ pending atomic.Int64 }

// FlushHTTP2 returns a handler that sends the rest of each HTTP/2 response itself, so that
// the number of responses can be limited. The request is then no longer in flight.
func (i *Ingress) FlushHTTP2(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.ProtoMajor != 2 {
			return
		}
		n := i.responses.pending.Add(1)
		defer i.responses.pending.Add(-1)
		send := http.NewResponseController(w)
		if n > int64(overload.PendingResponses.Max()) {
			_ = send.SetWriteDeadline(time.Now().Add(pendingTimeout)) // HTTP/2 supports deadlines
		}
		_ = send.Flush() // an error means that the client has ended the stream
	})
}

// PendingResponses returns the number of HTTP/2 responses that their clients have not read.
func (i *Ingress) PendingResponses() int { return int(i.responses.pending.Load()) }
