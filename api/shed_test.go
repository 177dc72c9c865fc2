package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// shedRig is something that does one thing after the other, and so makes whoever is
// inside wait the longer the more there are.
type shedRig struct {
	*shedder
	now     time.Time
	each    time.Duration // for one
	least   time.Duration // for one alone
	done    time.Time     // when the last will be
	refused int
}

// offer has arrivals come at a rate for a while, and returns how many were served a
// second, and how long the slowest took in the last half of that.
func (r *shedRig) offer(rate float64, d time.Duration) (goodput float64, slowest time.Duration) {
	end, served := r.now.Add(d), 0
	half := r.now.Add(d / 2)
	gap := time.Duration(float64(time.Second) / rate)
	type leaving struct{ in, out time.Time }
	var inside []leaving
	for ; r.now.Before(end); r.now = r.now.Add(gap) {
		for len(inside) > 0 && !inside[0].out.After(r.now) {
			took := inside[0].out.Sub(inside[0].in)
			r.leave(inside[0].out, took)
			if inside[0].out.After(half) {
				served++
				slowest = max(slowest, took)
			}
			inside = inside[1:]
		}
		if !r.enter(r.now) {
			r.refused++
			continue
		}
		r.done = r.done.Add(r.each)
		if soonest := r.now.Add(r.each); r.done.Before(soonest) {
			r.done = soonest
		}
		inside = append(inside, leaving{r.now, r.done.Add(r.least)})
	}
	for _, l := range inside {
		r.leave(l.out, l.out.Sub(l.in))
		r.now = l.out
	}
	return float64(served) / (d / 2).Seconds(), slowest
}

// Whatever the server can do, and however far etcd is: nobody is refused below that,
// and far above it the server does as much as ever, and nobody waits for long.
func TestShed_HoldsThePeak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := float64(rapid.IntRange(200, 3_000).Draw(t, "capacity"))
		least := time.Duration(rapid.SampledFrom([]int{1, 10, 120, 300}).Draw(t, "ms")) * time.Millisecond
		r := &shedRig{
			shedder: newShedder(4096), now: time.Now(), each: time.Duration(float64(time.Second) / capacity), least: least,
		}
		r.offer(capacity/2, 2*time.Second)
		if capacity/2*least.Seconds() < 4*shedFloor {
			require.Zero(t, r.refused, "at half of what it can do")
		}
		r.offer(capacity*0.9, 10*time.Second) // let in as many as it takes
		good, slowest := r.offer(3*capacity, 8*time.Second)
		could := min(capacity, 4096/least.Seconds())
		require.Greater(t, good, 0.8*could, "of %.0f a second", could)
		require.Less(t, slowest, 4*max(shedPatience, shedTimes*least)+time.Duration(shedFloor/capacity*1e9))
		require.Zero(t, r.inside)
		r.refused = 0
		good, _ = r.offer(could/2, 4*time.Second)
		require.Greater(t, good, 0.7*could/2, "and it is over when it is over")
	})
}

// While etcd elects a leader everybody waits for it; that is no reason to refuse the
// few starts of a service that has little to do.
func TestShed_SlowIsNotBusy(t *testing.T) {
	s, now := newShedder(4096), time.Now()
	for range 200 {
		for range shedFloor / 2 {
			require.True(t, s.enter(now))
		}
		now = now.Add(3 * time.Second)
		for range shedFloor / 2 {
			s.leave(now, 3*time.Second)
		}
	}
	assert.GreaterOrEqual(t, s.limit, float64(shedFloor))
}

// Only starts and questions are refused, with the time to come back after; heartbeats
// and stops go on.
func TestShed_WhatIsRefused(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	s.shed.inside = s.shed.most
	addr, _ := run(t, s)
	for _, call := range []struct{ method, path string }{
		{"POST", userBase + "/start"}, {"GET", userBase}, {"GET", "/api/v1/stats"},
	} {
		a := send(t, addr, bare(call.method, call.path), patience)
		assert.Equal(t, 503, a.status, call.path)
		assert.Regexp(t, "^[1-5]$", a.header.Get("Retry-After"))
		assert.Contains(t, a.body, "/problems/overloaded")
	}
	for _, call := range []struct{ method, path string }{
		{"POST", fmt.Sprintf("%s/streams/%s/heartbeat", userBase, exampleID)},
		{"POST", fmt.Sprintf("%s/streams/%s/stop", userBase, exampleID)}, {"POST", userBase + "/stop"}, {"DELETE", userBase},
	} {
		assert.NotEqual(t, 503, send(t, addr, bare(call.method, call.path), patience).status, call.path)
	}
	assert.Equal(t, s.shed.most, s.shed.inside)
}
