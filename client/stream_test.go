package client

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

var errNetwork = errors.New("connection reset")

func alive(int) (*http.Response, error) { return good(stream(90, 30)) }

func mustStart(t *testing.T, c *Client) *Stream {
	t.Helper()
	s, err := c.Start(t.Context(), "maya", apitype.Start{})
	require.NoError(t, err)
	return s
}

func TestStream_SendsHeartbeatsAtTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, alive))
		s := mustStart(t, c)
		time.Sleep(time.Hour)
		synctest.Wait()

		heartbeats := w.requests("/heartbeat")
		assert.InDelta(t, 120, len(heartbeats), 4)
		gaps := make(map[time.Duration]bool)
		for i := 1; i < len(heartbeats); i++ {
			gap := heartbeats[i].at.Sub(heartbeats[i-1].at)
			gaps[gap] = true
			assert.GreaterOrEqual(t, gap, 27*time.Second)
			assert.LessOrEqual(t, gap, 33*time.Second+time.Millisecond)
		}
		assert.Greater(t, len(gaps), 50, "no jitter")
		assert.Equal(t, "/api/v1/streams/users/maya/streams/s1/heartbeat", heartbeats[0].path)
		require.NoError(t, s.Stop(t.Context()))
		assert.NoError(t, s.Err())
	})
}

func TestStream_FollowsANewInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{Every: 10 * time.Second},
			service(90, 30, func(int) (*http.Response, error) { return good(stream(12, 4)) }))
		s := mustStart(t, c)
		time.Sleep(12 * time.Second)
		assert.Len(t, w.requests("/heartbeat"), 1, "Every is sooner than the service asked")
		time.Sleep(40 * time.Second)
		assert.InDelta(t, 11, len(w.requests("/heartbeat")), 2, "the service asked for every 4 s")
		assert.Equal(t, 12, s.Info().TTLSeconds)
		require.NoError(t, s.Stop(t.Context()))
	})
}

func TestStream_ContinuesUntilItExpires(t *testing.T) {
	noAnswer := func() (*http.Response, error) { return nil, errNetwork }
	busy := apitype.Problem{Status: 503}
	astray := apitype.Problem{Status: 404, Type: notFoundType}
	tests := map[string]func() (*http.Response, error){
		"no_answer":     noAnswer,
		"500":           func() (*http.Response, error) { return problem(apitype.Problem{Status: 500}) },
		"503":           func() (*http.Response, error) { return problem(busy, "Retry-After", "1") },
		"429":           func() (*http.Response, error) { return problem(apitype.Problem{Status: 429}) },
		"401":           func() (*http.Response, error) { return problem(apitype.Problem{Status: 401}) },
		"403":           func() (*http.Response, error) { return problem(apitype.Problem{Status: 403}) },
		"404_of_path":   func() (*http.Response, error) { return problem(astray) },
		"404_of_proxy":  func() (*http.Response, error) { return reply(404, "text/html", "<p>no route"), nil },
		"200_of_portal": func() (*http.Response, error) { return reply(200, "text/html", "<p>log in"), nil },
		"200_truncated": func() (*http.Response, error) { return reply(200, "application/json", `{"id":`), nil },
		"200_empty":     func() (*http.Response, error) { return good(struct{}{}) },
		"200_of_other":  func() (*http.Response, error) { return good(apitype.Stream{ID: "s2", TTLSeconds: 90}) },
	}
	for name, bad := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newClient(t, Config{}, service(90, 30, func(n int) (*http.Response, error) {
					if n == 1 {
						return alive(n)
					}
					return bad()
				}))
				s := mustStart(t, c)
				<-s.Done()

				heartbeats := w.requests("/heartbeat")
				took := time.Since(heartbeats[0].at) // the last answered request
				assert.Equal(t, 90*time.Second, took, "one TTL after the last good request left")
				assert.Greater(t, len(heartbeats), 4, "retried sooner than the pace")
				var ended *EndedError
				require.ErrorAs(t, s.Err(), &ended)
				assert.Equal(t, ReasonExpired, ended.Reason)
				require.ErrorIs(t, s.Err(), ErrEnded)
				require.Error(t, ended.Cause)
				assert.NotErrorIs(t, ended.Cause, context.DeadlineExceeded, "the cause is the service's failure")
				require.NoError(t, s.Stop(t.Context()))
				assert.Len(t, w.requests("/streams/s1"), 1, "the slot is given back once the service answers")
				assert.ErrorIs(t, s.Err(), ErrEnded, "Stop does not change how it ended")
			})
		})
	}
}

func TestStream_RecoversAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, func(n int) (*http.Response, error) {
			if n%4 != 0 {
				return nil, errNetwork
			}
			return alive(n)
		}))
		s := mustStart(t, c)
		time.Sleep(time.Hour)
		assert.NoError(t, s.Err())
		heartbeats := w.requests("/heartbeat")
		for i := 1; i < len(heartbeats); i++ { // a retry follows soon, the next regular heartbeat does not
			gap := heartbeats[i].at.Sub(heartbeats[i-1].at)
			if i%4 == 0 {
				assert.GreaterOrEqual(t, gap, 27*time.Second)
			} else {
				assert.Less(t, gap, 2*time.Second)
			}
		}
		require.NoError(t, s.Stop(t.Context()))
	})
}

// While etcd is unavailable nothing expires, so a degraded answer keeps a stream alive for
// another TTL after the answer, however late it is.
func TestStream_DegradedContinues(t *testing.T) {
	for _, ttl := range []int{5, 90} {
		t.Run(strconv.Itoa(ttl), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { degradedForAnHour(t, ttl) })
		})
	}
}

func degradedForAnHour(t *testing.T, ttl int) {
	t.Helper()
	began := time.Now()
	var mu sync.Mutex
	var last time.Time
	c, w := newClient(t, Config{}, service(ttl, ttl/3, func(int) (*http.Response, error) {
		if time.Since(began) > time.Hour {
			return nil, errNetwork
		}
		time.Sleep(3 * time.Second) // a node's timeout of etcd
		mu.Lock()
		last = time.Now()
		mu.Unlock()
		s := stream(ttl, ttl/3)
		s.Degraded = true
		return good(s)
	}))
	s := mustStart(t, c)
	time.Sleep(time.Hour)
	require.NoError(t, s.Err())
	assert.True(t, s.Info().Degraded)
	assert.Greater(t, len(w.requests("/heartbeat")), 3600/(ttl/3+4))
	<-s.Done()
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, time.Duration(ttl)*time.Second, time.Since(last), "one TTL after the last degraded answer")
	require.ErrorIs(t, s.Err(), ErrEnded)
}

func TestStream_EndsAtOnce(t *testing.T) {
	tests := map[string]struct {
		said   apitype.Problem
		reason string
	}{
		"410_replaced": {apitype.Problem{Status: 410, Reason: "replaced",
			By: &apitype.By{Device: &apitype.Device{Name: "Kitchen"}}}, "replaced"},
		"410_no_reason": {apitype.Problem{Status: 410}, ReasonEnded},
		"404":           {apitype.Problem{Status: 404}, ReasonEnded},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newClient(t, Config{}, service(90, 30,
					func(int) (*http.Response, error) { return problem(tc.said) }))
				s := mustStart(t, c)
				<-s.Done()
				assert.Len(t, w.requests("/heartbeat"), 1)
				var ended *EndedError
				require.ErrorAs(t, s.Err(), &ended)
				assert.Equal(t, tc.reason, ended.Reason)
				assert.Equal(t, tc.said.By, ended.By)
				assert.NoError(t, ended.Cause)
				require.NoError(t, s.Stop(t.Context()))
				assert.Empty(t, w.requests("/streams/s1"), "there is nothing to stop")
			})
		})
	}
}

func TestStream_RetryAfter(t *testing.T) {
	for name, tc := range map[string]struct {
		header   string
		min, max time.Duration
	}{
		"obeyed":            {"7", 7 * time.Second, 7 * time.Second},
		"not_past_the_pace": {"3600", 30 * time.Second, 30 * time.Second},
		"nonsense":          {"soon", 0, 250 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newClient(t, Config{}, service(90, 30, func(n int) (*http.Response, error) {
					if n == 1 {
						return problem(apitype.Problem{Status: 503}, "Retry-After", tc.header)
					}
					return alive(n)
				}))
				s := mustStart(t, c)
				time.Sleep(80 * time.Second)
				heartbeats := w.requests("/heartbeat")
				require.GreaterOrEqual(t, len(heartbeats), 2)
				gap := heartbeats[1].at.Sub(heartbeats[0].at)
				assert.GreaterOrEqual(t, gap, tc.min)
				assert.LessOrEqual(t, gap, tc.max)
				require.NoError(t, s.Stop(t.Context()))
			})
		})
	}
}

// A heartbeat to a server that never answers must not last until the lease has expired.
func TestStream_HungServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		c, w := newClient(t, Config{}, service(5, 1, func(int) (*http.Response, error) {
			return nil, errNetwork
		}))
		plain := w.answer
		w.answer = func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/api/v1/streams/users/maya/streams/s1/heartbeat" {
				select {
				case <-hang:
				case <-r.Context().Done():
				}
				return nil, r.Context().Err()
			}
			return plain(r)
		}
		began := time.Now()
		s := mustStart(t, c)
		<-s.Done()
		assert.Equal(t, 5*time.Second, time.Since(began))
		assert.GreaterOrEqual(t, len(w.requests("/heartbeat")), 2)
		require.ErrorIs(t, s.Err(), ErrEnded)
	})
}

func TestStream_StartContextBoundsOnlyTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, alive))
		ctx, cancel := context.WithCancel(t.Context())
		s, err := c.Start(ctx, "maya", apitype.Start{})
		require.NoError(t, err)
		cancel()
		time.Sleep(10 * time.Minute)
		assert.NoError(t, s.Err())
		assert.Greater(t, len(w.requests("/heartbeat")), 15)
		require.NoError(t, s.Stop(t.Context()))
	})
}

func TestStream_StopIsIdempotentAndConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, alive))
		s := mustStart(t, c)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { assert.NoError(t, s.Stop(t.Context())) })
		}
		wg.Wait()
		assert.Len(t, w.requests("/streams/s1"), 1)
		assert.NoError(t, s.Err())
		heartbeats := len(w.requests("/heartbeat"))
		time.Sleep(time.Hour)
		assert.Len(t, w.requests("/heartbeat"), heartbeats, "no heartbeat after Stop")
	})
}

func TestStream_StopRetriesAndMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		stops := 0
		c, w := newClient(t, Config{Attempts: 3}, service(90, 30, alive))
		plain := w.answer
		w.answer = func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodDelete {
				return plain(r)
			}
			mu.Lock()
			defer mu.Unlock()
			if stops++; stops <= 4 {
				return problem(apitype.Problem{Status: 503})
			}
			return problem(apitype.Problem{Status: 410, Reason: "stopped"}) // the first attempt succeeded, and its answer was lost
		}
		s := mustStart(t, c)
		var p *ProblemError
		require.ErrorAs(t, s.Stop(t.Context()), &p)
		assert.Equal(t, 503, p.Problem.Status)
		assert.Len(t, w.requests("/streams/s1"), 3)
		require.NoError(t, s.Stop(t.Context()))
		assert.Len(t, w.requests("/streams/s1"), 5)
		require.NoError(t, s.Stop(t.Context()))
		assert.Len(t, w.requests("/streams/s1"), 5)
	})
}

func TestStream_StopInterruptsAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newClient(t, Config{}, service(90, 30, alive))
		plain := w.answer
		w.answer = func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodDelete || len(w.requests("/heartbeat")) == 0 {
				return plain(r)
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		s := mustStart(t, c)
		for len(w.requests("/heartbeat")) == 0 {
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		require.NoError(t, s.Stop(t.Context()))
		assert.Zero(t, time.Since(began))
		assert.NoError(t, s.Err())
	})
}
