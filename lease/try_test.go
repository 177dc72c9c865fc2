package lease

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
)

// randomPlan returns a valid plan with two further limits.
func randomPlan(rnd *rand.Rand) policy.Plan {
	kinds := []policy.OnLimit{policy.Deny, policy.ReplaceOldest, policy.ReplaceLowest}
	p := policy.Plan{Limit: 1 + rnd.IntN(4), OnLimit: kinds[rnd.IntN(3)], Limits: []policy.Limit{
		{Name: "tv", Where: in(policy.AttrDeviceType, "tv", ""), Limit: 1 + rnd.IntN(2), OnLimit: kinds[rnd.IntN(3)], Observe: rnd.IntN(3) == 0},
		{Name: "profile", Per: policy.AttrProfile, Count: policy.CountDevices, Limit: 1 + rnd.IntN(2), OnLimit: kinds[rnd.IntN(3)]},
	}}
	if rnd.IntN(3) == 0 {
		p.Require = []policy.Attribute{policy.AttrProfile}
	}
	return p
}

// A triedUser has the streams of one user, as the limiter and as a try have them.
type triedUser struct {
	plan    policy.Plan
	ids     []string
	running []policy.TrialStream
}

// randomStart returns the same start in both forms.
func (u *triedUser) randomStart(rnd *rand.Rand, region string) (Request, policy.TrialStream) {
	one := func(texts ...string) string { return texts[rnd.IntN(len(texts))] }
	priority := rnd.IntN(policy.MaxPriority + 1)
	as := policy.Attributes{
		DeviceID: one("a", "b", ""), DeviceType: one("tv", "phone", ""), Profile: one("ada", "tom", ""), Priority: priority, Region: region,
	}
	next := policy.TrialStream{Session: one("", "", "x", "y"), Attributes: as, Evict: rnd.IntN(2) == 0}
	req := Request{
		Session: next.Session, Device: Device{ID: as.DeviceID, Type: as.DeviceType},
		Attributes: policy.StartAttributes{Profile: as.Profile, Priority: &priority},
	}
	if next.Evict {
		req.OnLimit = policy.ReplaceOldest
	}
	if len(u.ids) > 0 && rnd.IntN(4) == 0 {
		i := rnd.IntN(len(u.ids))
		req.Replaces, next.Replaces = []string{u.ids[i]}, []int{i}
	}
	return req, next
}

// A real start is decided as a try of it, and as WouldStart reports before.
func TestTry_DecidesAsAStart(t *testing.T) {
	t.Parallel()
	ctx, seed := t.Context(), rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, Region: "eu"})
	admitted, refused, evicted := 0, 0, 0
	for n := range 30 {
		u := triedUser{plan: randomPlan(rnd)}
		user := fmt.Sprint("user-", n)
		_, err := l.Rules().SetPlan(ctx, user, u.plan)
		require.NoError(t, err)
		for range 8 {
			req, next := u.randomStart(rnd, "eu")
			req.Plan = user
			want, wantErr := policy.Try(u.plan, u.running, next)
			would, wouldErr := l.WouldStart(ctx, user, req)
			got, err := l.Start(ctx, user, req)
			about := fmt.Sprintf("plan %+v, running %+v, start %+v", u.plan, u.running, next)
			if errors.Is(wantErr, policy.ErrMissingAttributes) {
				require.ErrorIs(t, err, policy.ErrMissingAttributes, about)
				require.ErrorIs(t, wouldErr, policy.ErrMissingAttributes, about)
				continue
			}
			require.NoError(t, wantErr)
			if !want.Admitted {
				refused++
				require.Equal(t, want.Limits, requireLimit(t, err).Limits, about)
				require.Equal(t, want.Limits, requireLimit(t, wouldErr).Limits, about)
				continue
			}
			require.NoError(t, err, about)
			require.NoError(t, wouldErr, about)
			require.Equal(t, []int{len(u.running), u.plan.Limit}, []int{would.Count, would.Limit}, about)
			var ends []int
			for _, e := range got.Ended {
				ends = append(ends, slices.Index(u.ids, e.Stream.ID))
				if e.Reason == policy.ReasonEvicted {
					evicted++
				}
			}
			slices.Sort(ends)
			require.Equal(t, want.Ends, ends, about)
			require.Equal(t, want.Observed, got.Observed, about)
			admitted++
			for _, i := range slices.Backward(ends) {
				u.ids, u.running = slices.Delete(u.ids, i, i+1), slices.Delete(u.running, i, i+1)
			}
			u.ids, u.running = append(u.ids, got.Stream.ID), append(u.running, next)
		}
	}
	t.Logf("%d admitted, %d refused, %d evicted", admitted, refused, evicted)
	assert.NotZero(t, admitted*refused*evicted)
}
