package edge

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"streamcount/api/edge/profile"
	"streamcount/api/internal/overload"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// A Limiter has the methods of [lease.Limiter] that the edge calls.
type Limiter interface {
	Attend(ctx context.Context, user, session string, entry bool) (lease.Attendance, error)
	LookUpSession(ctx context.Context, user, session string, entry bool) (lease.Attendance, error)
	Start(ctx context.Context, user string, r lease.Request) (lease.Started, error)
	WouldStart(ctx context.Context, user string, r lease.Request) (lease.Usage, error)
	Leave(ctx context.Context, user, session string) error
}

// A Backend is what the checks need of the service. It is set when etcd has been reached.
type Backend struct {
	Limiter Limiter
	// Key is the secret of cookies and derived sessions. All nodes have the same.
	Key []byte
	// CutOff reports that etcd has been unavailable to this node for long while other nodes are
	// registered, which can answer instead; nil means never.
	CutOff func() bool
}

// A CheckerConfig configures a Checker.
type CheckerConfig struct {
	Verifier profile.Verifier // of viewers' tokens; nil if none are configured
	// AdmitStart admits a start of a user under overload, or returns the bound that rejects it.
	// The Checker calls done after an admitted start. Nil admits all.
	AdmitStart func(ctx context.Context, user string) (done func(), bound overload.Bound)
}

// A Checker decides whether requests of players are allowed. It is safe for concurrent use.
type Checker struct {
	cfg      CheckerConfig
	backend  atomic.Pointer[Backend]
	starts   singleflight.Group
	refusals *lru.Cache[playback, refusal]
	known    *lru.Cache[uint64, struct{}] // sessions that were allowed recently, by their hash
	seed     maphash.Seed
}

// A playback is a session with its content. Each has its own start.
type playback struct {
	user, session, content string
	attributes             string // the profile of the edge, and what it states of the content
}

// A refusal is a start that was rejected.
type refusal struct {
	err error // a [*lease.LimitError], or about its attributes
	at  time.Time
}

const (
	refusalAge  = 2 * time.Second // how long a rejected start is not repeated
	maxRefusals = 1 << 12         // each has the streams of its user
	maxKnown    = 1 << 17
	// moveInterval is the minimum age of a stream that moves to other content. Players still
	// request the last segments of the previous content after they have changed it.
	moveInterval = 5 * time.Second
)

// NewChecker returns a Checker. Until SetBackend is called it answers that it is unavailable.
func NewChecker(cfg CheckerConfig) *Checker {
	c := &Checker{cfg: cfg, seed: maphash.MakeSeed()}
	var badSize, badSize2 error
	c.refusals, badSize = lru.New[playback, refusal](maxRefusals)
	c.known, badSize2 = lru.New[uint64, struct{}](maxKnown)
	if err := errors.Join(badSize, badSize2); err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// SetBackend sets the backend of all later checks.
func (c *Checker) SetBackend(b Backend) { c.backend.Store(&b) }

// A check is one request of a player.
type check struct {
	*Checker
	ctx     context.Context
	profile *profile.Profile
	target  profile.Target
	id      profile.Identity
	backend *Backend
}

var (
	errNotReached = errors.New("etcd has not been reached yet")
	errCutOff     = errors.New("etcd is unavailable to this node, and other nodes are registered")
)

// Check decides on a request of a player. A counted request starts the stream of its session, or
// keeps it alive.
func (c *Checker) Check(ctx context.Context, p *profile.Profile, r profile.Request) Decision {
	ch, d, decided := c.identify(ctx, p, r)
	if decided {
		return d
	}
	look := ch.backend.Limiter.Attend
	if ch.target.Kind == profile.Checked {
		look = ch.backend.Limiter.LookUpSession
	}
	a, err := look(ctx, ch.id.User, ch.id.Session, ch.target.Entry)
	if err != nil {
		return ch.withoutEtcd(d, err)
	}
	return ch.decide(d, a)
}

// identify reads a request and identifies its sender. decided is set if that is enough.
func (c *Checker) identify(ctx context.Context, p *profile.Profile, r profile.Request) (ch check, d Decision, decided bool) {
	t, err := p.Read(r)
	if err != nil {
		return ch, d.failed(err), true
	}
	d.Content = t.Content
	switch t.Kind {
	case profile.Passed:
		d.Outcome = Passed
		return ch, d, true
	case profile.Denied:
		return ch, d.rejected(&profile.Rejection{Reason: profile.BadURI, Detail: "No path of the profile matches the path of the request."}), true
	case profile.Counted, profile.Checked:
	}
	b := c.backend.Load()
	if b == nil {
		return ch, d.unavailable(errNotReached), true
	}
	id, err := p.Identify(ctx, r, t, c.cfg.Verifier, b.Key, time.Now())
	if err != nil {
		return ch, d.failed(err), true
	}
	d.User, d.Session, d.Cookie = id.User, id.Session, id.Cookie
	return check{c, ctx, p, t, id, b}, d, false
}

// failed is the decision on a request that cannot be read, or whose sender cannot be identified.
// While tokens cannot be verified no request is allowed, because anyone could send one.
func (d Decision) failed(err error) Decision {
	if r, ok := errors.AsType[*profile.Rejection](err); ok {
		return d.rejected(r)
	}
	return d.unavailable(err)
}

// decide decides by the state of the session.
func (ch check) decide(d Decision, a lease.Attendance) Decision {
	running := a.Stream.User != ""
	switch {
	case !a.Current && ch.cutOff():
		return d.unavailable(errCutOff)
	case running && (ch.target.Kind == profile.Checked || !ch.mustMove(a.Stream)):
		d = d.withUsage(a.Streams, a.Limit)
		d.Outcome, d.Degraded = Running, !a.Current || a.Stream.Degraded
		if ch.target.Kind == profile.Checked {
			d.Outcome = Looked
		}
		ch.addKnown()
		return d
	case a.Bar != nil && !running:
		return d.barred(a.Bar)
	case ch.target.Kind == profile.Checked:
		d.Outcome, d.Degraded = Looked, !a.Current
		return d
	}
	if r, ok := ch.refusals.Get(ch.playback()); ok && time.Since(r.at) < refusalAge {
		full, atLimit := errors.AsType[*lease.LimitError](r.err)
		switch {
		case !atLimit:
			return d.notInPlan(ch.profile.Name, r.err)
		case a.Streams >= len(full.Active):
			return d.atLimit(full)
		}
	}
	return ch.start(d, running)
}

func (ch check) cutOff() bool { return ch.backend.CutOff != nil && ch.backend.CutOff() }

// mustMove reports whether the request moves its stream to other content. A stream that started
// a moment ago stays where it is.
func (ch check) mustMove(s lease.Stream) bool {
	other := ch.profile.Change == profile.Move && ch.target.Content != "" && s.Content.ID != ch.target.Content
	return (other || ch.hasOtherAttributes(s)) && time.Since(s.StartedAt) >= moveInterval
}

// hasOtherAttributes reports whether the request states other attributes of the content than those
// of its stream. Otherwise a viewer could evade a limit on live channels, by a session that began
// with a film of the same id. The stream of a player's own start has the attributes of that start.
func (ch check) hasOtherAttributes(s lease.Stream) bool {
	if s.Via == "" {
		return false
	}
	var has policy.StartAttributes
	if s.Attributes != nil {
		has = *s.Attributes
	}
	as := &ch.id.Attributes
	return as.ContentType != "" && as.ContentType != has.ContentType || len(as.ContentLabels) > 0 && !slices.Equal(as.ContentLabels, has.ContentLabels)
}

func (ch check) playback() playback {
	p := playback{user: ch.id.User, session: ch.id.Session, content: ch.target.Content, attributes: ch.profile.Name + "\x00" + ch.id.Attributes.ContentType}
	for _, label := range ch.id.Attributes.ContentLabels {
		p.attributes += "\x00" + label
	}
	return p
}

// request returns the start of the request's stream. Without move it joins a running stream of the
// session. With it, it takes over the slot of that stream.
func (ch check) request(move bool) lease.Request {
	caller := ch.id.Caller
	return lease.Request{
		Session: ch.id.Session, Join: !move, Via: "edge:" + ch.profile.Name, OnLimit: ch.profile.OnLimit, Device: ch.id.Device,
		Content: lease.Content{ID: ch.target.Content}, Grant: caller.Plan, Limit: caller.Limit,
		Attributes: ch.id.Attributes,
	}
}

// A shedError is a start that was rejected under overload.
type shedError struct{ bound overload.Bound }

func (e shedError) Error() string { return "the node is overloaded: " + e.bound.String() }

// start starts the stream of the session, or moves the running one. Concurrent requests share one
// start, which ends independently of them.
func (ch check) start(d Decision, move bool) Decision {
	key := ch.playback()
	name := strings.Join([]string{key.user, key.session, key.content, key.attributes, strconv.FormatBool(move)}, "\x00")
	result, err, _ := ch.starts.Do(name, func() (any, error) {
		ctx := context.WithoutCancel(ch.ctx)
		if ch.cfg.AdmitStart != nil {
			done, bound := ch.cfg.AdmitStart(ctx, key.user)
			if bound != overload.None {
				return lease.Started{}, shedError{bound}
			}
			defer done()
		}
		st, err := ch.backend.Limiter.Start(ctx, key.user, ch.request(move))
		if errors.Is(err, lease.ErrLimit) || isNotInPlan(err) {
			ch.refusals.Add(key, refusal{err, time.Now()})
		}
		return st, err
	})
	if err != nil {
		return ch.notStarted(d, err, move)
	}
	st := result.(lease.Started)
	d = d.withUsage(st.Count, st.Limit)
	switch d.Outcome, d.Degraded = Started, st.Stream.Degraded; {
	case st.Joined:
		d.Outcome = Running
	case move:
		d.Outcome = Moved
	}
	ch.addKnown()
	return d
}

// notStarted decides on a request whose start or move failed with err.
func (ch check) notStarted(d Decision, err error, move bool) Decision {
	full, atLimit := errors.AsType[*lease.LimitError](err)
	shed, _ := errors.AsType[shedError](err)
	bar, barred := errors.AsType[*lease.Bar](err)
	switch {
	case barred: // this node has received the end of the stream since Attend
		return d.barred(bar)
	case atLimit:
		return d.atLimit(full)
	case isNotInPlan(err):
		return d.notInPlan(ch.profile.Name, err)
	case shed.bound == overload.RatePerUser && !move:
		return d.tooOften()
	case move: // the stream of the session is running
		d.Outcome, d.Degraded, d.Err = Running, true, err
		return d
	}
	return ch.withoutEtcd(d, err)
}

// isNotInPlan reports whether a start failed because of its attributes.
func isNotInPlan(err error) bool {
	return errors.Is(err, policy.ErrMissingAttributes) || errors.Is(err, policy.ErrBadAttributes)
}

// withoutEtcd decides by the outage policy of the profile.
func (ch check) withoutEtcd(d Decision, err error) Decision {
	switch {
	case errors.Is(err, lease.ErrBadUser):
		return d.rejected(&profile.Rejection{Reason: profile.BadIdentity, Detail: "The user id of the request is not valid."})
	case ch.cutOff():
		return d.unavailable(errCutOff)
	case ch.profile.OnOutage == profile.AllowAll, ch.profile.OnOutage == profile.AllowKnown && ch.known.Contains(ch.hash()):
		d.Outcome, d.Degraded, d.Err = Uncounted, true, err
		return d
	}
	return d.unavailable(err)
}

// addKnown adds an allowed session to those that the outage policy known allows.
func (ch check) addKnown() {
	if ch.profile.OnOutage == profile.AllowKnown {
		ch.known.Add(ch.hash(), struct{}{})
	}
}

func (ch check) hash() uint64 {
	return maphash.Comparable(ch.seed, playback{user: ch.id.User, session: ch.id.Session})
}

// Leave ends the stream of the session of a request, if there is one. The decision is Passed if
// that succeeds.
func (c *Checker) Leave(ctx context.Context, p *profile.Profile, r profile.Request) Decision {
	var d Decision
	t, err := p.Read(r)
	if err == nil && p.Change == profile.Split && t.Content == "" {
		err = &profile.Rejection{Reason: profile.BadURI, Detail: "With change: split the content decides which stream ends: " +
			"send the URI of the media below leave/, or in the headers of a check."}
	}
	if err != nil {
		return d.failed(err)
	}
	b := c.backend.Load()
	if b == nil {
		return d.unavailable(errNotReached)
	}
	id, err := p.Identify(ctx, r, t, c.cfg.Verifier, b.Key, time.Now())
	if err != nil {
		return d.failed(err)
	}
	d.User, d.Session = id.User, id.Session
	switch err := b.Limiter.Leave(ctx, id.User, id.Session); {
	case errors.Is(err, lease.ErrBadUser):
		return d.rejected(&profile.Rejection{Reason: profile.BadIdentity, Detail: "The user id of the request is not valid."})
	case err != nil:
		return d.unavailable(err)
	}
	return d
}
