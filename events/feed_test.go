package events

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// act does each kind of thing that can happen to a stream once, on node l.
func act(t *testing.T, l *lease.Limiter) {
	t.Helper()
	tv := func(name string) lease.Request { return lease.Request{Device: lease.Device{Name: name}} }
	ctx := t.Context()
	a := mustStart(t, l, "maya", lease.Request{Session: "tab", Device: lease.Device{Name: "A"}}).Stream
	mustStart(t, l, "maya", lease.Request{Session: "tab", Device: lease.Device{Name: "B"}}) // in the same slot
	c := mustStart(t, l, "maya", tv("C")).Stream
	_, err := l.Start(ctx, "maya", tv("D"))
	require.ErrorIs(t, err, lease.ErrLimit)
	mustStart(t, l, "maya", lease.Request{Device: lease.Device{Name: "E"}, OnLimit: policy.ReplaceOldest})
	_, err = l.Heartbeat(ctx, "maya", c.ID)
	require.NoError(t, err)
	_, err = l.Stop(ctx, "maya", c.ID)
	require.NoError(t, err)
	mustStart(t, l, "ben", tv("F"))
	_, err = l.Remove(ctx, "maya")
	require.NoError(t, err)
	_, err = l.Heartbeat(ctx, "maya", a.ID)
	require.ErrorIs(t, err, lease.ErrEnded)
}

// actEvents are the events of act.
var actEvents = []string{
	"start maya 1/2 A",
	"stop maya 0/2 replaced A by B", "start maya 1/2 B",
	"start maya 2/2 C",
	"refusal maya 2/2",
	"stop maya 1/2 evicted B by E", "start maya 2/2 E",
	"stop maya 1/2 stopped C",
	"start ben 1/2 F",
	"stop maya 0/2 removed E",
}

// withoutRefusals removes the refusals, which only the rejecting node publishes.
func withoutRefusals(texts []string) []string {
	var out []string
	for _, l := range texts {
		if !strings.HasPrefix(l, "refusal") {
			out = append(out, l)
		}
	}
	return out
}

func TestFeed_PublishesEachEventOnceInOrder(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here, l := feedOf(t, c, prefix)
	there, _ := feedOf(t, c, prefix)
	local, remote, ben := follow(t, here, "", ""), follow(t, there, "", ""), follow(t, here, "", "ben")
	act(t, l)
	// A refusal is published at once, a change only when the watch delivers it, so the
	// refusal may come earlier.
	got := next(t, local, len(actEvents))
	assert.Equal(t, withoutRefusals(actEvents), withoutRefusals(got))
	assert.ElementsMatch(t, actEvents, got)
	assert.Equal(t, withoutRefusals(actEvents), next(t, remote, len(actEvents)-1))
	assert.Equal(t, Activity{Starts: 5, Stops: 4, Admitted: 5, Refused: 1}, here.Activity())
	assert.Equal(t, Activity{Starts: 5, Stops: 4}, there.Activity())

	for _, fo := range []*Follower{local, remote} {
		require.Nil(t, fo.Next(), "no event is published twice")
	}
	slot, err := c.Get(t.Context(), slotKey(prefix, "ben"))
	require.NoError(t, err)
	_, err = c.Revoke(t.Context(), clientv3.LeaseID(slot.Kvs[0].Lease)) // as etcd does when the lease expires
	require.NoError(t, err)
	for _, fo := range []*Follower{local, remote} {
		assert.Equal(t, []string{"expiry ben 0/2 F"}, next(t, fo, 1))
	}
	assert.Equal(t, []string{"start ben 1/2 F", "expiry ben 0/2 F"}, next(t, ben, 2))
	assert.EqualValues(t, 1, here.Activity().Expiries)
	assert.EqualValues(t, 1, there.Activity().Expiries)
}

// Every cursor leads to exactly the events after it, on the node that issued it and on
// another one.
func TestFeed_ResumesFromEveryCursor(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here, l := feedOf(t, c, prefix)
	there, _ := feedOf(t, c, prefix)
	fo := follow(t, here, "", "")
	now, err := c.Get(t.Context(), "x") // not before the other node's list
	require.NoError(t, err)
	require.True(t, l.WaitApplied(t.Context(), now.Header.Revision))
	fo.AdvanceCursor()
	cursors, texts := []string{fo.Cursor()}, []string{}
	act(t, l)
	// A removal ends several streams in one revision.
	for range 2 {
		mustStart(t, l, "eve", lease.Request{})
	}
	_, err = l.Remove(t.Context(), "eve")
	require.NoError(t, err)
	for len(texts) < len(actEvents)+4 {
		texts = append(texts, next(t, fo, 1)...)
		cursors = append(cursors, fo.Cursor())
	}
	assert.Contains(t, strings.Join(cursors, " "), ".1~", "inside a revision")
	for i, cursor := range cursors {
		again := follow(t, here, cursor, "")
		if len(texts[i:]) > 0 {
			require.Equal(t, texts[i:], next(t, again, len(texts)-i), "after %s", cursor)
		}
		require.Nil(t, again.Next())
		bare, _, _ := strings.Cut(cursor, "~")
		for _, after := range []string{cursor, bare} {
			rest := withoutRefusals(texts[i:])
			other := follow(t, there, after, "")
			if len(rest) > 0 {
				require.Equal(t, rest, next(t, other, len(rest)), "after %s on another node", after)
			}
			require.Nil(t, other.Next())
		}
	}
}

// A node that lags behind the node of the cursor waits, and publishes no event twice.
func TestFeed_ResumesOnALaggingNode(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here, l := feedOf(t, c, prefix)
	there, other := feedOf(t, c, prefix)
	fo := follow(t, here, "", "")
	for i := range 20 {
		mustStart(t, l, fmt.Sprint("user-", i), lease.Request{})
		next(t, fo, 1)
		again := follow(t, there, fo.Cursor(), "")
		mustStart(t, other, "next", lease.Request{Session: "x"})
		got := next(t, again, 1)
		require.Contains(t, got[0], "next", "%d", i)
		for !strings.HasPrefix(next(t, fo, 1)[0], "start next") {
			continue // a takeover is a stop and a start
		}
	}
}

// A follower receives a gap if the ring no longer holds its events, if the cursor is
// from another history, and if a shard is new. The events then continue.
func TestFeed_Gaps(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	f := newFeed(8)
	l := newLimiter(t, c, lease.Config{Prefix: prefix, Limit: 2, Observer: f.Publisher("")})
	first := follow(t, f, "", "").Cursor()
	slow, quick, ben := follow(t, f, "", ""), follow(t, f, "", ""), follow(t, f, "", "ben")
	for i := range 9 {
		mustStart(t, l, fmt.Sprint("user-", i), lease.Request{})
		require.Equal(t, []string{fmt.Sprintf("start user-%d 1/2", i)}, next(t, quick, 1), "other followers lose nothing")
	}
	future := fmt.Sprint(l.AppliedRevision() + 1000)
	for detail, fo := range map[string]*Follower{
		gapSlow:    slow,
		gapOld:     follow(t, f, first, ""),
		gapHistory: follow(t, f, future, ""),
		gapShard:   follow(t, f, "elsewhere:7", ""),
	} {
		require.Equal(t, []string{"gap " + detail}, next(t, fo, 1))
		require.Nil(t, fo.Next(), detail)
		require.Nil(t, follow(t, f, fo.Cursor(), "").Next(), "a gap is published once")
	}
	assert.Equal(t, []string{"gap " + gapSlow}, next(t, ben, 1), "also for a follower of one user")
	mustStart(t, l, "ben", lease.Request{})
	for _, fo := range []*Follower{slow, quick, ben} {
		assert.Equal(t, []string{"start ben 1/2"}, next(t, fo, 1))
	}
}

// While no event happens the cursor advances with etcd, so that a node that started
// later can resume from it.
func TestFeed_AdvanceCursor(t *testing.T) {
	t.Parallel()
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
	require.True(t, l.WaitApplied(t.Context(), now.Header.Revision))
	fo.AdvanceCursor()
	assert.NotEqual(t, before, fo.Cursor())
	late, _ := feedOf(t, c, prefix)
	assert.Equal(t, []string{"gap " + gapOld}, next(t, follow(t, late, before, ""), 1))
	fo.AdvanceCursor()
	require.Eventually(t, func() bool { // the late node listed a later revision
		fo.AdvanceCursor()
		again := follow(t, late, fo.Cursor(), "")
		return again.Next() == nil
	}, soon, 10*time.Millisecond)
	mustStart(t, l, "maya", lease.Request{})
	assert.Equal(t, []string{"start maya 1/2"}, next(t, fo, 1))
	fo.AdvanceCursor()
}

// A migration to another etcd cluster neither stops nor starts a stream.
func TestFeed_MigrationPublishesNoEvents(t *testing.T) {
	t.Parallel()
	from, to := etcdtest.Client(t), etcdtest.Client(t)
	f := NewFeed()
	old := newLimiter(t, from, lease.Config{Prefix: etcdtest.Prefix(t), Limit: 2, Observer: f.Publisher("old")})
	fresh := newLimiter(t, to, lease.Config{Prefix: etcdtest.Prefix(t) + "x", Limit: 2, Observer: f.Publisher("fresh")})
	fo := follow(t, f, "", "")
	for range 2 {
		mustStart(t, old, "maya", lease.Request{})
		next(t, fo, 1)
	}
	state, err := old.Export(t.Context(), "maya", 0)
	require.NoError(t, err)
	require.Len(t, state.Streams, 2)
	require.NoError(t, fresh.Import(t.Context(), "maya", state, 0))
	require.NoError(t, old.FinishExport(t.Context(), "maya"))
	mustStart(t, old, "ben", lease.Request{})
	mustStart(t, fresh, "eve", lease.Request{})
	got := next(t, fo, 2)
	assert.ElementsMatch(t, []string{"start ben 1/2", "start eve 1/2"}, got)
	c := f.Concurrency()
	assert.Equal(t, []int{3, 1}, c.UsersReaching, "a user counts once, whatever the shard")
}

// A put that rewrites the record of the same stream, and a key that is not a stream,
// publish no event.
func TestFeed_IgnoresOtherWrites(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	f, l := feedOf(t, c, prefix)
	fo := follow(t, f, "", "")
	mustStart(t, l, "maya", lease.Request{})
	assert.Equal(t, []string{"start maya 1/2"}, next(t, fo, 1))
	key := slotKey(prefix, "maya")
	now, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	record, onLease := string(now.Kvs[0].Value), clientv3.WithLease(clientv3.LeaseID(now.Kvs[0].Lease))
	_, err = c.Put(t.Context(), key, record, onLease)
	require.NoError(t, err)
	_, err = c.Put(t.Context(), prefix+"/users/maya/junk", "junk")
	require.NoError(t, err)
	_, err = c.Delete(t.Context(), prefix+"/users/maya/junk")
	require.NoError(t, err)
	mustStart(t, l, "ben", lease.Request{})
	assert.Equal(t, []string{"start ben 1/2"}, next(t, fo, 1))

	// Another stream replaces the one in the slot without a tombstone: the first one
	// had expired.
	const nonceAt = len(`{"n":"`)
	_, err = c.Put(t.Context(), key, record[:nonceAt]+strings.Repeat("B", 16)+record[nonceAt+16:], onLease)
	require.NoError(t, err)
	assert.Equal(t, []string{"expiry maya 0/2", "start maya 1/2"}, next(t, fo, 2))
}

// Two shards in one feed have one position each in a cursor. The removal of one does
// not affect the other. The addition of one is a gap for cursors without it.
func TestFeed_AddsAndRemovesShards(t *testing.T) {
	t.Parallel()
	c := etcdtest.Client(t)
	f, here := NewFeed(), NewFeed()
	prefixes := map[string]string{"a": etcdtest.Prefix(t) + "a", "b": etcdtest.Prefix(t) + "b"}
	run := func(t *testing.T, f *Feed, name string) *lease.Limiter {
		t.Helper()
		return newLimiter(t, c, lease.Config{Prefix: prefixes[name], Limit: 2, Observer: f.Publisher(name)})
	}
	a := run(t, f, "a")
	run(t, here, "a")
	run(t, here, "b")
	fo := follow(t, f, "", "")
	onlyA := fo.Cursor()
	t.Run("both", func(t *testing.T) {
		b := run(t, f, "b")
		assert.Equal(t, []string{"gap the node has listed all streams again"}, next(t, fo, 1))
		mustStart(t, a, "ann", lease.Request{})
		next(t, fo, 1)
		mustStart(t, b, "bob", lease.Request{})
		assert.Equal(t, []string{"start bob 1/2"}, next(t, fo, 1))
		both, _, _ := strings.Cut(fo.Cursor(), "~")
		assert.Regexp(t, `^a:[0-9]+(\.\d+)?,b:[0-9]+$`, both)
		mustStart(t, a, "amy", lease.Request{})
		other := follow(t, here, both, "")
		assert.Equal(t, []string{"start amy 1/2"}, next(t, other, 1))
		require.Nil(t, other.Next())
		bare, _, _ := strings.Cut(onlyA, "~")
		assert.Contains(t, next(t, follow(t, here, bare, ""), 1)[0], "gap ")
		next(t, fo, 1)
	})
	assert.Regexp(t, `^a:[0-9]+~`, fo.Cursor(), "b was removed")
	mustStart(t, a, "art", lease.Request{})
	assert.Equal(t, []string{"start art 1/2"}, next(t, fo, 1))
	mustStart(t, a, "alf", lease.Request{})
	assert.Equal(t, []string{"start alf 1/2"}, next(t, follow(t, f, fo.Cursor(), ""), 1))
}

func TestFollower_WaitReturnsWithItsContext(t *testing.T) {
	fo := follow(t, NewFeed(), "", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, fo.Wait(ctx), context.Canceled)
	assert.Equal(t, "0~", fo.Cursor()[:2])
}
