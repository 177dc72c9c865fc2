package distinct

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type pair struct{ a, b string }

func TestBatch_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b Batch[pair]
		for range rapid.IntRange(1, 5).Draw(t, "batches") {
			text := rapid.SampledFrom([]string{"", "x", "y", "xy"})
			values := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pair {
				return pair{text.Draw(t, "a"), text.Draw(t, "b")}
			}), 0, 40).Draw(t, "values")
			b.Set(values)
			var firsts []int32
			for i, v := range values {
				first := slices.Index(values, v)
				require.Equal(t, first, b.First(i), "%d", i)
				if first == i {
					firsts = append(firsts, int32(i))
				}
			}
			assert.ElementsMatch(t, firsts, b.Order())
		}
	})
}

func TestBatch_OrderIsRandom(t *testing.T) {
	var b Batch[int]
	seen := make(map[int32]bool)
	for range 1000 {
		b.Set([]int{1, 2, 3, 4})
		seen[b.Order()[0]] = true
	}
	assert.Len(t, seen, 4)
}

func BenchmarkBatch(b *testing.B) {
	values := make([]pair, 500)
	for i := range values {
		values[i] = pair{"viewer", string(rune(i)) + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
	}
	var d Batch[pair]
	b.ReportAllocs()
	for b.Loop() {
		d.Set(values)
	}
}
