package ingress

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/api/internal/overload"
)

const (
	// MaxSmallBody is the maximum length of a body that is not large. A large body has a
	// limit on its number, and a shared buffer.
	MaxSmallBody = 16 << 10
	// DefaultBodyTimeout is the default of [Config.BodyTimeout].
	DefaultBodyTimeout = 3 * time.Second
	// MinBodyRate is the minimum rate of the rest of a body, in bytes per second.
	MinBodyRate = 64 << 10
)

// bodies are the request bodies that are arriving, and the large ones until they have been
// handled. A body arrives at the speed of its client, so a request is not in flight before
// its body has arrived.
type bodies struct {
	arriving, large registry
	buffers         sync.Pool     // of *[]byte, for large bodies
	validations     chan struct{} // holds a value for each large body that is validated
	timeout         time.Duration // of the first MaxSmallBody bytes
}

func (b *bodies) init(timeout time.Duration, exempt func(netip.Addr) bool) {
	b.timeout = timeout
	b.validations = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
	b.arriving = registry{maxTotal: overload.Bodies.Max(), maxPerClient: overload.BodiesPerAddress.Max(), exempt: exempt}
	b.large = registry{maxTotal: overload.LargeBodies.Max(), maxPerClient: overload.LargeBodiesPerAddress.Max(), exempt: exempt}
}

// A BodyError is returned for a body that was not received because of a limit.
type BodyError struct{ Bound overload.Bound }

func (e *BodyError) Error() string { return "too many request bodies: " + e.Bound.String() }

// A Body is the body of a request. The methods of a nil Body do nothing.
type Body struct {
	bodies     *bodies
	control    *http.ResponseController
	client     netip.Addr
	privileged bool
	small      entry        // while it arrives
	large      entry        // from MaxSmallBody on, until Release
	buffer     *[]byte      // of a large body
	end        atomic.Int32 // 0 while it arrives, then arrived or the bound that evicted it
}

const arrived = -1

// evict stops the wait for the rest of the body. The lock of the registry prevents that the
// body is removed from it at the same time.
func (b *Body) evict(bound overload.Bound) bool {
	if !b.end.CompareAndSwap(0, int32(bound)) {
		return false
	}
	_ = b.control.SetReadDeadline(time.Unix(1, 0)) // on an error the earlier deadline applies
	return true
}

// An arrivingBody is a Body in bodies.arriving.
type arrivingBody struct{ *Body }

func (b arrivingBody) evict(why outcome) bool {
	if why == evictedOfClient {
		return b.Body.evict(overload.BodiesPerAddress)
	}
	return b.Body.evict(overload.Bodies)
}

func (arrivingBody) clearUsed() bool { return false }

// A largeBody is a Body in bodies.large.
type largeBody struct{ *Body }

func (b largeBody) evict(why outcome) bool {
	if why == evictedOfClient {
		return b.Body.evict(overload.LargeBodiesPerAddress)
	}
	return b.Body.evict(overload.LargeBodies)
}

func (largeBody) clearUsed() bool { return false }

// Receive reads the body of r up to limit bytes and one more, which shows that the body is
// too large. It returns a [BodyError] if a limit is reached, and a net.Error if the body is
// too slow. The limits of one client do not apply to a privileged one. The caller calls
// [Body.Release], also after an error.
func (i *Ingress) Receive(
	w http.ResponseWriter, r *http.Request, limit int64, client netip.Addr, privileged bool,
) (*Body, []byte, error) {
	b := &Body{bodies: &i.bodies, control: http.NewResponseController(w), client: client, privileged: privileged}
	in := io.LimitReader(r.Body, limit+1)
	conn := ConnOf(r)
	if conn.framing != nil && !conn.HasUnreadBody() { // it arrived together with the head
		data, err := b.read(in, r.ContentLength, limit, nil)
		return b, data, err
	}
	// A connection that waits for a body may be evicted.
	conn.EndRequest()
	defer func() {
		if !conn.BeginRequest() {
			panic(http.ErrAbortHandler) // the client would not receive the response
		}
	}()
	data, err := b.receive(in, r.ContentLength, limit)
	return b, data, err
}

func (b *Body) receive(in io.Reader, announced, limit int64) ([]byte, error) {
	switch b.bodies.arriving.add(&b.small, arrivingBody{b}, b.client, b.privileged) {
	case registryFull:
		return nil, &BodyError{overload.Bodies}
	case clientFull:
		return nil, &BodyError{overload.BodiesPerAddress}
	case added, evictedOldest, evictedOfClient:
	}
	defer b.bodies.arriving.remove(&b.small)
	start := time.Now()
	data, err := b.read(in, announced, limit, func(n int) {
		_ = b.control.SetReadDeadline(start.Add(b.bodies.timeout + time.Duration(n)*time.Second/MinBodyRate))
		if b.end.Load() != 0 { // evicted before that
			_ = b.control.SetReadDeadline(time.Unix(1, 0))
		}
	})
	if !b.end.CompareAndSwap(0, arrived) {
		return nil, &BodyError{overload.Bound(b.end.Load())}
	}
	if err == nil {
		_ = b.control.SetReadDeadline(time.Time{}) // the call has its own deadline
	}
	return data, err
}

// read reads in, which has at most limit bytes and one more, to its end. Before each part it
// calls beforePart, if that is not nil, with the number of bytes that were read.
func (b *Body) read(in io.Reader, announced, limit int64, beforePart func(n int)) ([]byte, error) {
	if announced < 0 || announced > MaxSmallBody {
		announced = MaxSmallBody
	}
	data := make([]byte, 0, announced+1) // the extra byte shows that there is more
	for {
		if beforePart != nil {
			beforePart(len(data))
		}
		for end := min(cap(data), len(data)+MaxSmallBody+1); len(data) < end; {
			n, err := in.Read(data[len(data):end])
			data = data[:len(data)+n]
			if errors.Is(err, io.EOF) {
				return data, nil
			}
			if err != nil {
				return nil, err
			}
		}
		switch {
		case int64(len(data)) > limit:
			return data, nil
		case b.buffer == nil:
			if bound := b.grow(int(limit) + 1); bound != overload.None {
				return nil, &BodyError{bound}
			}
			data = append((*b.buffer)[:0], data...)
		}
	}
}

// grow adds b to the large bodies and gives it a buffer of at least size bytes, or returns
// the bound that was reached.
func (b *Body) grow(size int) overload.Bound {
	switch b.bodies.large.add(&b.large, largeBody{b}, b.client, b.privileged) {
	case registryFull:
		return overload.LargeBodies
	case clientFull:
		return overload.LargeBodiesPerAddress
	case added, evictedOldest, evictedOfClient:
	}
	b.buffer, _ = b.bodies.buffers.Get().(*[]byte)
	if b.buffer == nil || cap(*b.buffer) < size {
		b.buffer = new(make([]byte, 0, size))
	}
	return overload.None
}

// Validate calls validate, which reads the body. Only a few large bodies are validated at
// the same time: each takes milliseconds of a processor, which would delay other requests.
func (b *Body) Validate(validate func()) {
	if b != nil && b.buffer != nil {
		b.bodies.validations <- struct{}{}
		defer func() { <-b.bodies.validations }()
	}
	validate()
}

// Release releases the buffer of the body, which must not be used afterwards.
func (b *Body) Release() {
	if b == nil || b.buffer == nil {
		return
	}
	b.bodies.large.remove(&b.large)
	b.bodies.buffers.Put(b.buffer)
	b.buffer = nil
}
