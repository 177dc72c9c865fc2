package userdata_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
	"streamcount/lease/userdata"
)

func TestErase_RemovesEveryKey(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 1, Cooldown: time.Hour, Region: "eu"})
	for _, other := range neighbours {
		e.start(t, other, lease.Request{})
	}
	five, priority := 5, 7
	e.start(t, user, lease.Request{Session: "tab", Device: lease.Device{ID: "tv"}})
	running := e.start(t, user, lease.Request{
		OnLimit: policy.ReplaceOldest, Session: "s", Device: lease.Device{ID: "d", Name: "TV", Type: "tv"},
		Content: lease.Content{ID: "film", Title: "Metropolis"}, Limit: &five, Attributes: policy.StartAttributes{
			Profile: "kids", Network: "n", ContentType: "live", ContentLabels: []string{"a"}, Labels: map[string]string{"k": "v"}, Priority: &priority,
		},
	}).Stream
	_, err := e.Rules().SetOverride(t.Context(), user, policy.Override{Limit: &five})
	require.NoError(t, err)
	e.put(t, "/users/"+inKeys+"/other", "of another program")
	e.put(t, "/departed/"+inKeys, `{"streams":[]}`)
	e.put(t, "/arrived/"+inKeys, "")

	d, err := e.UserData().Read(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	assert.Equal(t, user, d.User)
	require.NotEmpty(t, d.Streams)
	s := d.Streams[len(d.Streams)-1]
	assert.Equal(t, running.ID, s.ID)
	assert.Equal(t, userdata.Device{ID: "d", Name: "TV", Type: "tv"}, s.Device)
	assert.Equal(t, userdata.Content{ID: "film", Title: "Metropolis"}, s.Content)
	assert.Equal(t, []string{"eu", "s", "kids", "n", "live"}, []string{s.Region, s.Session, s.Attributes.Profile, s.Attributes.Network, s.Attributes.ContentType})
	assert.Equal(t, []string{"a"}, s.Attributes.ContentLabels)
	assert.Equal(t, map[string]string{"k": "v"}, s.Attributes.Labels)
	assert.Equal(t, []int{7, 5}, []int{*s.Attributes.Priority, *s.Limit})
	assert.Equal(t, running.StartedAt.UnixMilli(), s.StartedAt.UnixMilli())
	assert.Equal(t, time.Minute, s.TTL)
	assert.WithinRange(t, s.ExpiresAt, time.Now(), time.Now().Add(time.Minute))
	assert.JSONEq(t, `{"limit":5}`, string(d.Override))
	assert.JSONEq(t, `{"streams":[]}`, string(d.Departed))
	assert.True(t, d.Arrived)
	assert.Equal(t, []userdata.Key{{Key: e.prefix + "/users/" + inKeys + "/other", Value: []byte("of another program")}}, d.Other)

	streams := len(d.Streams)
	erased, err := e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{Streams: streams, Override: true, Cooldowns: len(d.Cooldowns), Other: 3}, erased)
	assert.Empty(t, e.keys(t, inKeys))
	assert.Empty(t, e.keys(t, user))
	for _, other := range neighbours {
		u, err := e.List(t.Context(), other, lease.Linearizable)
		require.NoError(t, err, other)
		assert.Equal(t, 1, u.Count, other)
	}
	_, err = e.Heartbeat(t.Context(), user, running.ID)
	var ended *lease.EndedError
	require.ErrorAs(t, err, &ended)
	assert.Equal(t, policy.ReasonRemoved, ended.Reason)

	_, err = e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.ErrorIs(t, err, userdata.ErrNoData)
	_, err = e.UserData().Read(t.Context(), user, userdata.Options{})
	require.ErrorIs(t, err, userdata.ErrNoData)
	e.start(t, user, lease.Request{})
	_, err = e.Start(t.Context(), user, lease.Request{})
	require.ErrorIs(t, err, lease.ErrLimit, "the limit without the override applies")
}

// An eviction writes cool-downs. After an erasure, the evicted client may evict again.
func TestErase_Cooldowns(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 1, Cooldown: time.Hour})
	tv := lease.Request{OnLimit: policy.ReplaceOldest, Session: "tv", Device: lease.Device{ID: "tv"}}
	phone := lease.Request{OnLimit: policy.ReplaceOldest, Session: "phone"}
	e.start(t, user, tv)
	e.start(t, user, phone)
	_, err := e.Start(t.Context(), user, tv)
	require.ErrorIs(t, err, lease.ErrLimit, "the TV was evicted just now")
	d, err := e.UserData().Read(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	require.Len(t, d.Cooldowns, 2)
	for _, c := range d.Cooldowns {
		assert.Contains(t, []string{"session", "device"}, c.Of)
		assert.Len(t, c.Hash, 22)
		assert.WithinRange(t, c.ExpiresAt, time.Now().Add(30*time.Minute), time.Now().Add(2*time.Hour))
	}
	erased, err := e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{Streams: 1, Cooldowns: 2}, erased)
	assert.Empty(t, e.keys(t, inKeys))
	e.start(t, user, phone)
	e.start(t, user, tv)
}

func TestErase_KeepsTheMarkOfAMove(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 1})
	keep := userdata.Options{KeepMark: true}
	e.put(t, "/arrived/"+inKeys, "")
	e.start(t, user, lease.Request{})
	erased, err := e.UserData().Erase(t.Context(), user, keep)
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{Streams: 1, MarkKept: true}, erased)
	assert.Equal(t, []string{"/arrived/" + inKeys}, e.keys(t, inKeys))
	erased, err = e.UserData().Erase(t.Context(), user, keep)
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{MarkKept: true}, erased)
	erased, err = e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{Other: 1}, erased)
	assert.Empty(t, e.keys(t, inKeys))
}

// A set of rules is not applied if a rule was changed after its dry run. The erasure of an
// override is such a change.
func TestErase_ChangesTheRules(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 3})
	one := 1
	_, err := e.Rules().SetOverride(t.Context(), user, policy.Override{Limit: &one})
	require.NoError(t, err)
	set := rules.Set{Users: map[string]*policy.Override{neighbours[0]: {Limit: &one}}}
	diff, err := e.Rules().Apply(t.Context(), set, rules.Options{DryRun: true})
	require.NoError(t, err)
	_, err = e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	_, err = e.Rules().Apply(t.Context(), set, rules.Options{Since: diff.Revision})
	require.ErrorIs(t, err, rules.ErrChanged)
}

// The call finds out what happened after a write that etcd did not answer.
func TestErase_UnknownOutcome(t *testing.T) {
	for _, applied := range []bool{false, true} {
		e := newEnv(t, lease.Config{Limit: 3})
		e.start(t, user, lease.Request{})
		e.start(t, user, lease.Request{})
		tries := 0
		e.kv.onErase(func(r *pb.TxnRequest) error {
			if tries++; tries > 1 {
				return nil
			}
			if applied {
				_, err := e.kv.KVClient.Txn(t.Context(), r)
				require.NoError(t, err)
			}
			return errors.New("no answer")
		})
		erased, err := e.UserData().Erase(t.Context(), user, userdata.Options{})
		require.NoError(t, err)
		assert.Equal(t, userdata.Erased{Streams: 2}, erased)
		assert.Equal(t, map[bool]int{false: 2, true: 1}[applied], tries, "applied: %v", applied)
		assert.Empty(t, e.keys(t, inKeys))
	}
}

func TestErase_Unavailable(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 3})
	e.start(t, user, lease.Request{})
	e.kv.onErase(func(*pb.TxnRequest) error { return errors.New("no answer") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := e.UserData().Erase(ctx, user, userdata.Options{})
	require.ErrorIs(t, err, lease.ErrUnavailable)
}

// A transaction that etcd receives after a later one of the same call deletes nothing that
// was put in between.
func TestErase_LateTransaction(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 1, Cooldown: time.Hour})
	one := 1
	tv := lease.Request{OnLimit: policy.ReplaceOldest, Session: "tv"}
	begin := func() {
		e.start(t, user, tv)
		e.start(t, user, lease.Request{OnLimit: policy.ReplaceOldest})
		_, err := e.Rules().SetOverride(t.Context(), user, policy.Override{Limit: &one})
		require.NoError(t, err)
	}
	begin()
	var late *pb.TxnRequest
	e.kv.onErase(func(r *pb.TxnRequest) error {
		if late != nil {
			return nil
		}
		late = r
		return errors.New("no answer")
	})
	_, err := e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	begin()
	before := e.keys(t, inKeys)
	require.Len(t, before, 3)
	resp, err := e.kv.KVClient.Txn(t.Context(), late)
	require.NoError(t, err)
	assert.False(t, resp.Succeeded)
	assert.Equal(t, before, e.keys(t, inKeys))
}

// Streams that start or end between the read and the transaction.
func TestErase_ConcurrentChanges(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 3})
	stopped := e.start(t, user, lease.Request{}).Stream
	e.start(t, user, lease.Request{})
	tries := 0
	e.kv.onErase(func(*pb.TxnRequest) error {
		switch tries++; tries {
		case 1:
			_, err := e.etcd.Delete(t.Context(), e.prefix+"/users/"+inKeys+"/000")
			require.NoError(t, err)
		case 2:
			require.Fail(t, "deletions do not matter")
		}
		return nil
	})
	erased, err := e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{Streams: 1}, erased, "not the stream %s, which had ended", stopped.ID)

	e.start(t, user, lease.Request{})
	tries = 0
	e.kv.onErase(func(*pb.TxnRequest) error {
		if tries++; tries == 1 {
			e.put(t, "/users/"+inKeys+"/007", `{"n":"AQAAAAAAAAAAAAAA","t":1,"l":60}`)
		}
		return nil
	})
	erased, err = e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.NoError(t, err)
	assert.Equal(t, []int{2, 2}, []int{tries, erased.Streams}, "it read the keys again")
	assert.Empty(t, e.keys(t, inKeys))
}

func TestErase_OtherRouting(t *testing.T) {
	e := newEnv(t, lease.Config{Limit: 3})
	e.start(t, user, lease.Request{})
	_, err := e.UserData().Erase(t.Context(), user, userdata.Options{RoutingRevision: 7})
	require.ErrorIs(t, err, lease.ErrRouting)
	_, err = e.UserData().Read(t.Context(), user, userdata.Options{RoutingRevision: 7})
	require.ErrorIs(t, err, lease.ErrRouting)
	e.kv.onErase(func(*pb.TxnRequest) error {
		e.put(t, "/shards", "{}")
		return nil
	})
	_, err = e.UserData().Erase(t.Context(), user, userdata.Options{})
	require.ErrorIs(t, err, lease.ErrRouting)
	assert.Len(t, e.keys(t, inKeys), 1)
	for _, bad := range []string{"", "a\nb", strings.Repeat("a", 129)} {
		_, err = e.UserData().Erase(t.Context(), bad, userdata.Options{})
		require.ErrorIs(t, err, lease.ErrBadUser)
		_, err = e.UserData().Read(t.Context(), bad, userdata.Options{})
		require.ErrorIs(t, err, lease.ErrBadUser)
	}
}

// Two nodes start and evict streams of a user while the user is erased again and again. The
// user never has more streams than the limit, and a last erasure leaves nothing.
func TestErase_RacesWithStarts(t *testing.T) {
	const limit = 2
	one := newEnv(t, lease.Config{Limit: limit, Cooldown: time.Second})
	two := newEnv(t, lease.Config{Limit: limit, Cooldown: time.Second, Prefix: one.prefix})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan int, 1)
	watch := one.etcd.Watch(ctx, one.prefix+"/users/"+inKeys+"/", clientv3.WithPrefix())
	go func() { // counts the keys after each revision
		live, most := map[string]bool{}, 0
		for resp := range watch {
			for i, ev := range resp.Events {
				if live[string(ev.Kv.Key)] = ev.Type == clientv3.EventTypePut; !live[string(ev.Kv.Key)] {
					delete(live, string(ev.Kv.Key))
				}
				if i+1 == len(resp.Events) || resp.Events[i+1].Kv.ModRevision != ev.Kv.ModRevision {
					most = max(most, len(live))
				}
			}
		}
		over <- most
	}()
	var work sync.WaitGroup
	for i, e := range []env{one, two, one, two} {
		work.Go(func() {
			for range 25 {
				r := lease.Request{Session: string(rune('a' + i))}
				if i%2 == 0 {
					r.OnLimit = policy.ReplaceOldest
				}
				if _, err := e.Start(t.Context(), user, r); err != nil {
					assert.ErrorIs(t, err, lease.ErrLimit)
				}
			}
		})
	}
	for range 2 {
		work.Go(func() {
			for range 10 {
				if _, err := two.UserData().Erase(t.Context(), user, userdata.Options{}); err != nil {
					assert.ErrorIs(t, err, userdata.ErrNoData)
				}
			}
		})
	}
	work.Wait()
	if _, err := one.UserData().Erase(t.Context(), user, userdata.Options{}); err != nil {
		require.ErrorIs(t, err, userdata.ErrNoData)
	}
	assert.Empty(t, one.keys(t, inKeys))
	cancel()
	assert.LessOrEqual(t, <-over, limit)
}
