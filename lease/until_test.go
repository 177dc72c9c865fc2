package lease

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// ahead returns the time after d, in whole seconds.
func ahead(d time.Duration) time.Time { return time.Now().Add(d).Truncate(time.Second).UTC() }

// leaseOfOverride returns the lease of the key of a user's override, 0 for none. It fails if
// there is no key.
func leaseOfOverride(t *testing.T, c *clientv3.Client, l *Limiter, user string) clientv3.LeaseID {
	t.Helper()
	resp, err := c.Get(t.Context(), l.keys.Override(user))
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	return clientv3.LeaseID(resp.Kvs[0].Lease)
}

// requireLeaseEnds waits until etcd has revoked a lease.
func requireLeaseEnds(t *testing.T, c *clientv3.Client, id clientv3.LeaseID) {
	t.Helper()
	require.Eventually(t, func() bool {
		left, err := c.TimeToLive(context.Background(), id)
		return err == nil && left.TTL < 0
	}, time.Minute, 10*time.Millisecond)
}

func setOverride(t *testing.T, l *Limiter, user string, o policy.Override) *policy.Override {
	t.Helper()
	old, err := l.Rules().SetOverride(t.Context(), user, o)
	require.NoError(t, err)
	return old
}

// A user has other numbers of the plan's limits, until the override is removed.
func TestOverride_NumbersOfLimits(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), etcdtest.Client(t)
	l := newLimiter(t, c, Config{Prefix: etcdtest.Prefix(t), Limit: 9})
	_, err := l.Rules().SetPlan(ctx, "one-tv", policy.Plan{Limit: 3, Limits: []policy.Limit{
		{Name: "tv", Limit: 1, Where: []policy.Condition{{Attribute: policy.AttrDeviceType, In: []string{"tv"}}}},
	}})
	require.NoError(t, err)
	tv := Request{Plan: "one-tv", Device: Device{Type: "tv"}}
	addOn := policy.Override{Limits: map[string]int{"tv": 2, "kids": 1}, Until: ahead(time.Hour)}
	assert.Nil(t, setOverride(t, l, "maya", addOn))
	mustStart(t, l, "maya", tv)
	mustStart(t, l, "maya", tv)
	_, err = l.Start(ctx, "maya", tv)
	require.ErrorIs(t, err, ErrLimit)
	mustStart(t, l, "tom", tv)
	_, err = l.Start(ctx, "tom", tv)
	require.ErrorIs(t, err, ErrLimit)

	o, err := l.Rules().Override(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, addOn, o)
	assert.Equal(t, &addOn, setOverride(t, l, "maya", addOn), "a repetition")
	_, err = l.Rules().SetOverride(ctx, "maya", policy.Override{Limits: map[string]int{"total": 4}})
	require.ErrorIs(t, err, policy.ErrBadRule)
	_, err = l.Rules().SetOverride(ctx, "maya", policy.Override{Plan: "one-tv", Until: ahead(-time.Hour)})
	require.ErrorIs(t, err, policy.ErrBadRule)
	removed, err := l.Rules().RemoveOverride(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, addOn, removed)
	_, err = l.Start(ctx, "maya", tv)
	require.ErrorIs(t, err, ErrLimit)
}

// An override ends at its time, and not before.
func TestOverride_Ends(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), etcdtest.Client(t)
	l := newLimiter(t, c, Config{Prefix: etcdtest.Prefix(t), Limit: 0})
	other := newLimiter(t, c, Config{Prefix: l.cfg.Prefix, Limit: 0})
	until := ahead(6 * time.Second)
	o := limitOf(3)
	o.Until = until
	setOverride(t, l, "maya", o)
	require.Eventually(t, func() bool {
		now := time.Now()
		_, err := other.Rules().Override(ctx, "maya")
		if err != nil {
			require.ErrorIs(t, err, rules.ErrNoOverride)
			return true
		}
		return now.After(until.Add(time.Minute)) // too late
	}, 2*time.Minute, 10*time.Millisecond)
	ended := time.Now()
	assert.WithinRange(t, ended, until, until.Add(time.Minute))
	for _, node := range []*Limiter{l, other} {
		_, err := node.Start(ctx, "maya", Request{})
		require.ErrorIs(t, err, ErrLimit)
	}
	require.Eventually(t, func() bool { return !l.replica.Rules().HasOverrides() }, time.Minute, time.Millisecond)
}

// The lease of an override lasts for the remaining time. It ends when the override is
// replaced or removed, and does not remove the later override.
func TestOverride_Leases(t *testing.T) {
	t.Parallel()
	ctx, m := t.Context(), etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	l := newLimiter(t, c, Config{Limit: 3})
	withEnd := func(n int, until time.Time) policy.Override {
		o := limitOf(n)
		o.Until = until
		return o
	}
	began := time.Now()
	setOverride(t, l, "maya", withEnd(5, ahead(time.Hour)))
	first := leaseOfOverride(t, c, l, "maya")
	left, err := c.TimeToLive(ctx, first)
	require.NoError(t, err)
	assert.InDelta(t, time.Hour.Seconds(), float64(left.GrantedTTL), 1+time.Since(began).Seconds())

	setOverride(t, l, "maya", withEnd(6, ahead(2*time.Hour)))
	second := leaseOfOverride(t, c, l, "maya")
	assert.NotEqual(t, first, second)
	requireLeaseEnds(t, c, first)
	assert.Equal(t, second, leaseOfOverride(t, c, l, "maya"))

	setOverride(t, l, "maya", limitOf(6))
	requireLeaseEnds(t, c, second)
	assert.Zero(t, leaseOfOverride(t, c, l, "maya"))
	o, err := l.Rules().Override(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, limitOf(6), o)

	setOverride(t, l, "maya", withEnd(6, ahead(time.Hour)))
	third := leaseOfOverride(t, c, l, "maya")
	_, err = l.Rules().RemoveOverride(ctx, "maya")
	require.NoError(t, err)
	requireLeaseEnds(t, c, third)
}

// Each override of a set has its own lease. A dry run and a rejected set grant none.
func TestOverride_LeasesOfASet(t *testing.T) {
	t.Parallel()
	ctx, m := t.Context(), etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	l := newLimiter(t, c, Config{Limit: 3})
	set := rules.Set{Users: map[string]*policy.Override{}}
	for i := range 200 {
		o := policy.Override{Limits: map[string]int{"tv": i % 3}, Until: ahead(time.Hour)}
		set.Users[fmt.Sprint("user-", i)] = &o
	}
	before := m.Calls(etcdtest.Grant)
	dry, err := l.Rules().Apply(ctx, set, rules.Options{DryRun: true})
	require.NoError(t, err)
	_, err = l.Rules().SetPlan(ctx, "family", policy.Plan{Limit: 1})
	require.NoError(t, err)
	_, err = l.Rules().Apply(ctx, set, rules.Options{Since: dry.Revision})
	require.ErrorIs(t, err, rules.ErrChanged)
	set.Users["maya"] = &policy.Override{Plan: "gold", Until: ahead(time.Hour)}
	_, err = l.Rules().Apply(ctx, set, rules.Options{})
	require.ErrorIs(t, err, policy.ErrNoPlan)
	assert.Less(t, m.Calls(etcdtest.Grant)-before, 100, "only the leases of streams are granted")

	delete(set.Users, "maya")
	done, err := l.Rules().Apply(ctx, set, rules.Options{})
	require.NoError(t, err)
	assert.Equal(t, dry.Users, done.Users)
	leases := map[clientv3.LeaseID]bool{0: true}
	for user := range set.Users {
		leases[leaseOfOverride(t, c, l, user)] = true
	}
	assert.Len(t, leases, 201)
	set.Users["user-0"] = nil
	again, err := l.Rules().Apply(ctx, set, rules.Options{})
	require.NoError(t, err)
	require.Len(t, again.Users, 1)
	assert.Equal(t, []string{"- limit tv"}, again.Users[0].Limits())
}

// Each request and each reply of a change is lost once. No lease that is left over removes a
// later override.
func TestOverride_SurvivesALostMessage(t *testing.T) {
	t.Parallel()
	for _, method := range []string{etcdtest.Grant, etcdtest.Txn} {
		for _, side := range []string{"request", "reply"} {
			t.Run(method[len("/etcdserverpb."):]+"/"+side, func(t *testing.T) {
				t.Parallel()
				r := newFaultyLimiter(t, Config{Limit: 3})
				soon := limitOf(5)
				soon.Until = ahead(time.Hour)
				setOverride(t, r.Limiter, "maya", soon)
				later := limitOf(6)
				later.Until = ahead(2 * time.Hour)
				if side == "request" {
					r.faults.CutRequest(method, 1)
				} else {
					r.faults.CutReply(method, 1)
				}
				_, err := r.Rules().SetOverride(t.Context(), "maya", later)
				if err != nil {
					require.ErrorIs(t, err, ErrUnavailable)
				}
				r.faults.Heal()
				o, readErr := r.Rules().Override(t.Context(), "maya")
				require.NoError(t, readErr)
				if err == nil {
					assert.Equal(t, later, o)
				}
				assert.NotZero(t, leaseOfOverride(t, r.direct, r.Limiter, "maya"))

				setOverride(t, r.Limiter, "maya", limitOf(7))
				all, err := r.direct.Leases(t.Context())
				require.NoError(t, err)
				for _, left := range all.Leases { // as if all of them ended now
					_, _ = r.direct.Revoke(t.Context(), left.ID) // the node may have revoked it
				}
				o, err = r.Rules().Override(t.Context(), "maya")
				require.NoError(t, err)
				assert.Equal(t, limitOf(7), o)
			})
		}
	}
}

// A node removes an override whose lease lasts longer than the override, as after a change
// of etcd's leader. It does not remove the override that another node has put in its place.
func TestOverride_LeaseThatLastsLonger(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), etcdtest.Client(t)
	l := newLimiter(t, c, Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	long, err := c.Grant(ctx, 3600)
	require.NoError(t, err)
	put := func(user string, until time.Time, more string) {
		value := fmt.Sprintf(`{"limit":5,"until":%q%s}`, until.Format(time.RFC3339), more)
		_, err := c.Put(ctx, l.keys.Override(user), value, clientv3.WithLease(long.ID))
		require.NoError(t, err)
	}
	for i := range 120 { // more than one transaction removes
		put(fmt.Sprint("user-", i), ahead(-time.Hour), `,"needs":["until"]`)
	}
	put("of-a-later-version", ahead(-time.Hour), `,"needs":["teleport"]`)
	put("tom", ahead(time.Hour), "")
	require.Eventually(t, func() bool {
		resp, err := c.Get(ctx, l.keys.OverridesPrefix(), clientv3.WithPrefix())
		require.NoError(t, err)
		return len(resp.Kvs) == 1 && string(resp.Kvs[0].Key) == l.keys.Override("tom")
	}, time.Minute, 10*time.Millisecond)

	put("ida", ahead(2*time.Second), "")
	_, err = l.Rules().RemoveOverride(ctx, "tom")
	require.NoError(t, err)
	setOverride(t, l, "ida", limitOf(1))
	requireLeaseEnds(t, c, long.ID) // that of a replaced override is revoked
	o, err := l.Rules().Override(ctx, "ida")
	require.NoError(t, err)
	assert.Equal(t, limitOf(1), o)
}
