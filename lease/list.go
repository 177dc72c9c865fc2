package lease

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/singleflight"
)

// List returns user's streams, oldest first, by a linearizable read. A stream
// whose ExpiresAt etcd's leader could not tell has none. Returns [ErrBadUser],
// [ErrNoStreams] and [ErrUnavailable].
func (l *Limiter) List(ctx context.Context, user string) (Usage, error) {
	if !ValidUser(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	s, err := l.read(ctx, user)
	if err != nil {
		return Usage{}, err
	}
	if len(s.held) == 0 {
		return Usage{}, ErrNoStreams
	}
	lives := l.askLifetimes(ctx, leasesOf(s.held))
	u := l.usage(user, len(s.held))
	for _, h := range s.held {
		st := l.stream(user, max(h.slot, 0), h.lease, h.rec)
		st.ExpiresAt = lives[h.lease].until()
		u.Active = append(u.Active, st)
	}
	return u, nil
}

const (
	totalsAge  = time.Second      // how long an answer is shown again
	totalsTime = 30 * time.Second // bounds one count of everything
	totalsPage = 5000             // keys a read, so that etcd is not held up
)

// totals remembers the last count of everything.
type totals struct {
	asking singleflight.Group

	mu   sync.Mutex
	at   time.Time
	last Totals
}

// Totals counts the streams of all users, at one etcd revision that is at most
// a second old. Returns [ErrUnavailable].
func (l *Limiter) Totals(ctx context.Context) (Totals, error) {
	t := &l.totals
	t.mu.Lock()
	last, fresh := t.last, time.Since(t.at) < totalsAge
	t.mu.Unlock()
	if !fresh {
		select {
		case r := <-t.asking.DoChan("", l.countAll):
			if r.Err != nil {
				return Totals{}, r.Err
			}
			last = r.Val.(Totals)
		case <-ctx.Done():
			return Totals{}, unavailable("count streams", ctx.Err())
		}
	}
	last.Admitted, last.Refused, last.Expired = l.admitted.Load(), l.refused.Load(), l.expired.Load()
	return last, nil
}

// countAll reads every stream page by page at one revision.
func (l *Limiter) countAll() (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), totalsTime)
	defer cancel()
	c := counter{keys: l.keys, limit: l.cfg.Limit, t: Totals{ByRegion: map[string]int{}}}
	end := clientv3.GetPrefixRangeEnd(l.keys.users())
	for from := l.keys.users(); ; {
		page, done := context.WithTimeout(ctx, l.cfg.Timeout)
		resp, err := l.kv.Get(page, from, clientv3.WithRange(end), clientv3.WithLimit(totalsPage),
			clientv3.WithRev(c.t.Revision))
		done()
		if err != nil {
			return nil, unavailable("count streams", err)
		}
		if c.t.Revision == 0 {
			c.t.Revision = resp.Header.Revision
		}
		c.add(resp.Kvs)
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	c.turn("")
	l.totals.mu.Lock()
	defer l.totals.mu.Unlock()
	l.totals.at, l.totals.last = time.Now(), c.t
	return c.t, nil
}

// counter adds up streams that come in key order, so user by user.
type counter struct {
	keys  keys
	limit int
	user  string
	of    int // streams of user so far
	t     Totals
}

func (c *counter) add(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		c.turn(c.keys.owner(string(kv.Key)))
		c.of++
		c.t.Streams++
		var r struct {
			Region string `json:"r"`
		}
		_ = json.Unmarshal(kv.Value, &r) // a foreign value counts under no region
		c.t.ByRegion[r.Region]++
	}
}

// turn closes the books of one user before those of the next are opened.
func (c *counter) turn(next string) {
	if next == c.user {
		return
	}
	if c.of > 0 {
		c.t.Users++
		if c.of >= c.limit {
			c.t.UsersAtLimit++
		}
	}
	c.user, c.of = next, 0
}

// String is for logs and test failures.
func (u Usage) String() string { return fmt.Sprintf("%s: %d of %d", u.User, u.Count, u.Limit) }
