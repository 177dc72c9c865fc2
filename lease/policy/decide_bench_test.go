package policy

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// BenchmarkDecide measures decisions of plans without further limits.
func BenchmarkDecide(b *testing.B) {
	held := func(n int) []Stream {
		var out []Stream
		for i := range n {
			st := stream(i, i+1, fmt.Sprint("session", i))
			st.Device, st.Content = fmt.Sprint("device", i), fmt.Sprint("film", i/2)
			out = append(out, st)
		}
		return out
	}
	tests := []struct {
		name  string
		rule  Rule
		held  []Stream
		start Start
	}{
		{"first", Rule{Limit: 3}, nil, Start{Session: "tv"}},
		{"third", Rule{Limit: 3}, held(2), Start{Session: "tv"}},
		{"takeover", Rule{Limit: 3}, held(3), Start{Session: "session1"}},
		{"refused", Rule{Limit: 3}, held(3), Start{Session: "tv"}},
		{"evicts", Rule{Limit: 3, EvictionAllowed: true}, held(3), Start{Session: "tv", Evict: true}},
		{"content", Rule{Limit: 3, Counting: CountContent}, held(4), Start{Session: "tv", Content: "film1"}},
		{"refused60", Rule{Limit: 60}, held(60), Start{Session: "tv"}},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decide(tt.rule, tt.held, tt.start)
			}
		})
	}
}

// A plan without further limits costs no allocation.
func TestDecide_AllocatesNothing(t *testing.T) {
	held := []Stream{stream(0, 1, "a"), stream(1, 2, "b")}
	for _, limit := range []int{2, 3} {
		assert.Zero(t, testing.AllocsPerRun(100, func() { Decide(Rule{Limit: limit}, held, Start{Session: "tv"}) }))
	}
}

// BenchmarkDecide_SeveralLimits measures decisions of plans with further limits, on a start
// that makes the given number of streams.
func BenchmarkDecide_SeveralLimits(b *testing.B) {
	for _, n := range []int{3, MaxLimit} {
		var held []Stream
		for i := range n - 1 {
			st := stream(i, i+1, "")
			st.Attributes = &Attributes{DeviceType: []string{"tv", "phone"}[i%2], Profile: fmt.Sprint("profile", i), Priority: DefaultPriority}
			held = append(held, st)
		}
		for _, limits := range []int{0, 1, 4, MaxLimits} {
			p := Plan{Limit: MaxLimit}
			for i := range limits {
				p.Limits = append(p.Limits, Limit{
					Name: fmt.Sprint("limit-", i), Limit: MaxLimit, Count: []Counting{CountStreams, CountProfiles}[i%2],
					Where: []Condition{{Attribute: AttrDeviceType, In: []string{"stb", "console", "tv"}}},
				})
			}
			r := ruleOf(b, p)
			s := Start{Attributes: &Attributes{DeviceType: "tv", Priority: DefaultPriority}}
			b.Run(fmt.Sprintf("limits=%d/streams=%d", limits, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := Decide(r, held, s); !ok {
						b.Fatal("not admitted")
					}
				}
			})
		}
	}
}
