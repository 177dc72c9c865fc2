package bench

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func samplesOf(n int, of func(i int) Sample) []Sample {
	list := make([]Sample, n)
	for i := range list {
		list[i] = of(i)
	}
	return list
}

func TestCheckGrowth(t *testing.T) {
	flat := samplesOf(400, func(i int) Sample {
		return Sample{Resident: int64(200+i%30) << 20, Descriptors: 150 + i%7, Goroutines: 900 - i%50}
	})
	leak := samplesOf(400, func(i int) Sample {
		return Sample{Resident: 200 << 20, Descriptors: 150 + i, Goroutines: 900}
	})
	warm := samplesOf(400, func(i int) Sample { return Sample{Descriptors: min(2*i, 200)} })
	for name, tt := range map[string]struct {
		samples []Sample
		grown   int64
	}{
		"flat": {flat, 0}, "a leak of descriptors": {leak, 1}, "warming up": {warm, 0}, "too short": {leak[:100], 0},
	} {
		tr := &targetRun{faults: &faultCounter{}, result: result{samples: tt.samples}}
		tr.checkGrowth()
		assert.Equal(t, tt.grown, tr.faults.counts[faultGrowth].Load(), name)
	}
}
