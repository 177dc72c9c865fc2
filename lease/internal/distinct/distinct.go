// Package distinct finds equal values in a batch.
package distinct

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
)

// A Batch is a batch of values of which some may be equal. Its memory is used again by the
// next call of Set.
type Batch[T comparable] struct {
	firsts, order []int32
	table         []int32 // hash table of indexes plus one
}

var seed = maphash.MakeSeed()

// Set makes values the batch.
func (b *Batch[T]) Set(values []T) {
	n := len(values)
	b.firsts, b.order = resize(b.firsts, n), b.order[:0]
	b.table = resize(b.table, 1<<bits.Len(uint(2*n)))
	clear(b.table)
	mask := uint64(len(b.table) - 1)
	for i, v := range values {
		at := maphash.Comparable(seed, v) & mask
		for b.table[at] != 0 && values[b.table[at]-1] != v {
			at = (at + 1) & mask
		}
		if b.table[at] == 0 {
			b.table[at] = int32(i + 1)
			b.order = append(b.order, int32(i))
		}
		b.firsts[i] = b.table[at] - 1
	}
	rand.Shuffle(len(b.order), func(i, j int) { b.order[i], b.order[j] = b.order[j], b.order[i] })
}

// Order returns the indexes of the distinct values, of which each is the first of those
// equal to it, in random order.
func (b *Batch[T]) Order() []int32 { return b.order }

// First returns the index of the first value that is equal to the one at i.
func (b *Batch[T]) First(i int) int { return int(b.firsts[i]) }

func resize(s []int32, n int) []int32 {
	if cap(s) < n {
		return make([]int32, n)
	}
	return s[:n]
}
