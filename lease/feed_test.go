package lease

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/etcdtest"
)

// line is an event as tests compare it.
func line(e *Event) string {
	words := []string{string(e.Kind), e.User, fmt.Sprintf("%d/%d", e.Streams, e.Limit()), string(e.Reason)}
	if s, ok := e.Stream(); ok {
		words = append(words, s.Device.Name)
	}
	if by := e.By(); by != nil {
		words = append(words, "by "+by.Device.Name)
	}
	if e.Kind == EventGap {
		words = []string{"gap", e.Detail}
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

// take returns the next n events.
func take(t *testing.T, fo *Follower, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out []string
	for len(out) < n {
		e := fo.Next()
		if e == nil {
			require.NoError(t, fo.Wait(ctx), "after %q", out)
			continue
		}
		out = append(out, line(e))
	}
	return out
}

func follow(t *testing.T, f *Feed, after, user string) *Follower {
	t.Helper()
	fo, err := f.Follow(t.Context(), after, user)
	require.NoError(t, err)
	return fo
}

// feedOf returns a feed, and a running limiter that tells it.
func feedOf(t *testing.T, c *clientv3.Client, prefix string) (*Feed, *Limiter) {
	t.Helper()
	f := NewFeed()
	return f, newLimiter(t, c, Config{Prefix: prefix, Limit: 2, Feed: f, TTL: MinTTL})
}

// act does one of everything that can happen to a stream, on node l.
func act(t *testing.T, l *Limiter) {
	t.Helper()
	tv := func(name string) Request { return Request{Device: Device{Name: name}} }
	ctx := t.Context()
	a := mustStart(t, l, "maya", Request{Session: "tab", Device: Device{Name: "A"}}).Stream
	mustStart(t, l, "maya", Request{Session: "tab", Device: Device{Name: "B"}}) // in the same slot
	c := mustStart(t, l, "maya", tv("C")).Stream
	_, err := l.Start(ctx, "maya", tv("D"))
	require.ErrorIs(t, err, ErrLimit)
	mustStart(t, l, "maya", Request{Device: Device{Name: "E"}, OnLimit: ReplaceOldest})
	_, err = l.Heartbeat(ctx, "maya", c.ID)
	require.NoError(t, err)
	_, err = l.Stop(ctx, "maya", c.ID)
	require.NoError(t, err)
	mustStart(t, l, "ben", tv("F"))
	_, err = l.Remove(ctx, "maya")
	require.NoError(t, err)
	_, err = l.Heartbeat(ctx, "maya", a.ID)
	require.ErrorIs(t, err, ErrEnded)
}

var acted = []string{
	"start maya 1/2 A",
	"stop maya 0/2 replaced A by B", "start maya 1/2 B",
	"start maya 2/2 C",
	"refusal maya 2/2",
	"stop maya 1/2 evicted B by E", "start maya 2/2 E",
	"stop maya 1/2 stopped C",
	"start ben 1/2 F",
	"stop maya 0/2 removed E",
}

// admittedOnly drops the refusals, which are told only by the node that made them.
func admittedOnly(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !strings.HasPrefix(l, "refusal") {
			out = append(out, l)
		}
	}
	return out
}

func TestFeed_EveryKindOnceAndInOrder(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here, l := feedOf(t, c, prefix)
	there, other := feedOf(t, c, prefix)
	near, far, ben := follow(t, here, "", ""), follow(t, there, "", ""), follow(t, here, "", "ben")
	act(t, l)
	// A refusal is told at once, what etcd does when it is seen: it may come earlier.
	got := take(t, near, len(acted))
	assert.Equal(t, admittedOnly(acted), admittedOnly(got))
	assert.ElementsMatch(t, acted, got)
	assert.Equal(t, admittedOnly(acted), take(t, far, len(acted)-1))
	assert.Equal(t, Activity{Starts: 5, Stops: 4, Admitted: 5, Refused: 1}, here.Activity())
	assert.Equal(t, Activity{Starts: 5, Stops: 4}, there.Activity())

	s, err := l.List(t.Context(), "ben", Bounded)
	require.NoError(t, err)
	who := leaseOfID(t, l, s.Active[0])
	for _, fo := range []*Follower{near, far, ben} {
		require.Nil(t, fo.gapOrNext(), "nothing is told twice")
	}
	_, err = c.Revoke(t.Context(), clientv3.LeaseID(who.lease)) // as etcd does when it has run out
	require.NoError(t, err)
	for _, fo := range []*Follower{near, far} {
		assert.Equal(t, []string{"expiry ben 0/2 F"}, take(t, fo, 1))
	}
	assert.Equal(t, []string{"start ben 1/2 F", "expiry ben 0/2 F"}, take(t, ben, 2))
	assert.EqualValues(t, 1, here.Activity().Expiries)
	assert.EqualValues(t, 1, there.Activity().Expiries)
	_ = other
}

// gapOrNext skips what a follower of one user leaves out.
func (fo *Follower) gapOrNext() *Event {
	if fo.user != "" {
		return nil
	}
	return fo.Next()
}

// From every cursor there is, on the node that gave it and on another one, exactly
// the rest follows.
func TestFeed_ResumesFromEveryCursor(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here, l := feedOf(t, c, prefix)
	there, _ := feedOf(t, c, prefix)
	fo := follow(t, here, "", "")
	cursors, lines := []string{fo.Cursor()}, []string{}
	act(t, l)
	// A removal ends several streams in one revision.
	for range 2 {
		mustStart(t, l, "eve", Request{})
	}
	_, err := l.Remove(t.Context(), "eve")
	require.NoError(t, err)
	for len(lines) < len(acted)+4 {
		lines = append(lines, take(t, fo, 1)...)
		cursors = append(cursors, fo.Cursor())
	}
	assert.Contains(t, strings.Join(cursors, " "), ".1~", "inside a revision")
	for i, cursor := range cursors {
		again := follow(t, here, cursor, "")
		if len(lines[i:]) > 0 {
			require.Equal(t, lines[i:], take(t, again, len(lines)-i), "after %s", cursor)
		}
		require.Nil(t, again.Next())
		bare, _, _ := strings.Cut(cursor, "~")
		for _, text := range []string{cursor, bare} {
			rest := admittedOnly(lines[i:])
			other := follow(t, there, text, "")
			if len(rest) > 0 {
				require.Equal(t, rest, take(t, other, len(rest)), "after %s on another node", text)
			}
			require.Nil(t, other.Next())
		}
	}
}

// A node that is behind the one that gave the cursor waits, and tells nothing twice.
func TestFeed_ResumesOnANodeThatIsBehind(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here, l := feedOf(t, c, prefix)
	there, other := feedOf(t, c, prefix)
	fo := follow(t, here, "", "")
	for i := range 20 {
		mustStart(t, l, fmt.Sprint("user-", i), Request{})
		take(t, fo, 1)
		again := follow(t, there, fo.Cursor(), "")
		mustStart(t, other, "next", Request{Session: "x"})
		got := take(t, again, 1)
		require.Contains(t, got[0], "next", "%d", i)
		for !strings.HasPrefix(take(t, fo, 1)[0], "start next") {
			continue // a takeover is a stop and a start
		}
	}
}

// What the ring does not hold any more, a history that etcd does not have, and a
// feed that knows of nothing: all are gaps, after which the events go on.
func TestFeed_Gaps(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	f := newFeed(8)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, Feed: f})
	begin := follow(t, f, "", "").Cursor()
	slow, quick, ben := follow(t, f, "", ""), follow(t, f, "", ""), follow(t, f, "", "ben")
	for i := range 9 {
		mustStart(t, l, fmt.Sprint("user-", i), Request{})
		require.Equal(t, []string{fmt.Sprintf("start user-%d 1/2", i)}, take(t, quick, 1), "others lose nothing")
	}
	future := fmt.Sprint(l.view.applied.Load() + 1000)
	begun := time.Now()
	for why, fo := range map[string]*Follower{
		"this reader is too slow for what happens": slow,
		gapOld:     follow(t, f, begin, ""),
		gapHistory: follow(t, f, future, ""),
		gapShard:   follow(t, f, "elsewhere:7", ""),
	} {
		require.Equal(t, []string{"gap " + why}, take(t, fo, 1))
		require.Nil(t, fo.Next(), why)
		require.Nil(t, follow(t, f, fo.Cursor(), "").Next(), "a gap is told once")
	}
	assert.Less(t, time.Since(begun), 10*time.Second)
	assert.Equal(t, []string{"gap this reader is too slow for what happens"}, take(t, ben, 1), "whoever he looks for")
	mustStart(t, l, "ben", Request{})
	for _, fo := range []*Follower{slow, quick, ben} {
		assert.Equal(t, []string{"start ben 1/2"}, take(t, fo, 1))
	}
}

// Where nothing happens the cursor moves with etcd, so that a node which started
// meanwhile can go on from it.
func TestFeed_SettlesWhereEtcdIs(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	f, l := feedOf(t, c, prefix)
	fo := follow(t, f, "", "")
	before := fo.Cursor()
	for range 3 {
		_, err := c.Put(t.Context(), prefix+"/elsewhere", "x")
		require.NoError(t, err)
	}
	now, err := c.Get(t.Context(), "x")
	require.NoError(t, err)
	require.True(t, l.view.reach(t.Context(), now.Header.Revision))
	fo.Settle()
	assert.NotEqual(t, before, fo.Cursor())
	late, _ := feedOf(t, c, prefix)
	assert.Equal(t, []string{"gap " + gapOld}, take(t, follow(t, late, before, ""), 1))
	fo.Settle()
	require.Eventually(t, func() bool { // the late one has listed at its own start
		fo.Settle()
		again := follow(t, late, fo.Cursor(), "")
		return again.Next() == nil
	}, time.Minute, 10*time.Millisecond)
	mustStart(t, l, "maya", Request{})
	assert.Equal(t, []string{"start maya 1/2"}, take(t, fo, 1))
	fo.Settle()
}

// Users who move to another etcd, and those who arrive, neither stop nor start.
func TestFeed_AMoveIsNoEvent(t *testing.T) {
	from, to := etcdtest.Client(t), etcdtest.Client(t)
	f := NewFeed()
	old := newLimiter(t, from, Config{Prefix: etcdtest.Prefix(t), Limit: 2, Feed: f, Shard: "old"})
	fresh := newLimiter(t, to, Config{Prefix: etcdtest.Prefix(t) + "x", Limit: 2, Feed: f, Shard: "fresh"})
	fo := follow(t, f, "", "")
	for range 2 {
		mustStart(t, old, "maya", Request{})
		take(t, fo, 1)
	}
	luggage, err := old.Depart(t.Context(), "maya", 0)
	require.NoError(t, err)
	require.Len(t, luggage.Streams, 2)
	require.NoError(t, fresh.Arrive(t.Context(), "maya", luggage, 0))
	require.NoError(t, old.Departed(t.Context(), "maya"))
	mustStart(t, old, "ben", Request{})
	mustStart(t, fresh, "eve", Request{})
	got := take(t, fo, 2)
	assert.ElementsMatch(t, []string{"start ben 1/2", "start eve 1/2"}, got)
	c := f.Concurrency()
	assert.Equal(t, []int{3, 1}, c.Reached, "maya is one user, wherever she lives")
}
