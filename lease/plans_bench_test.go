package lease_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"streamcount/lease"
	"streamcount/lease/policy"
)

// BenchmarkStartStop_SeveralLimits is BenchmarkStartStop under plans with further limits, by
// users who have the given number of streams after the start. Each caller has one user.
func BenchmarkStartStop_SeveralLimits(b *testing.B) {
	for _, limits := range []int{0, 1, 4, policy.MaxLimits} {
		for _, streams := range []int{3, policy.MaxLimit} {
			b.Run(fmt.Sprintf("limits=%d/streams=%d", limits, streams), func(b *testing.B) {
				each(b, func(b *testing.B, r rig) { //nolint:thelper // it is the benchmark itself
					_, err := r.Rules().SetPlan(b.Context(), policy.DefaultPlan, planWith(limits))
					require.NoError(b, err)
					start := func(caller, stream int) string {
						req := lease.Request{
							Device:     lease.Device{ID: fmt.Sprint("device-", stream), Name: "TV", Type: []string{"tv", "phone"}[stream%2]},
							Attributes: policy.StartAttributes{Profile: fmt.Sprint("profile-", stream)},
						}
						st, err := r.Start(context.Background(), fmt.Sprint("user-", caller), req)
						require.NoError(b, err)
						return st.Stream.ID
					}
					for caller := range callers {
						for stream := range streams - 1 {
							start(caller, stream)
						}
					}
					parallel(b, func(caller int) {
						_, err := r.Stop(context.Background(), fmt.Sprint("user-", caller), start(caller, streams))
						require.NoError(b, err)
					})
				})
			})
		}
	}
}

// planWith returns a plan with a number of further limits that hold.
func planWith(limits int) policy.Plan {
	p := policy.Plan{Limit: policy.MaxLimit}
	for i := range limits {
		p.Limits = append(p.Limits, policy.Limit{
			Name: fmt.Sprint("limit-", i), Limit: policy.MaxLimit, Count: []policy.Counting{policy.CountStreams, policy.CountProfiles}[i%2],
			Where: []policy.Condition{{Attribute: policy.AttrDeviceType, In: []string{"stb", "console", "tv"}}},
		})
	}
	return p
}
