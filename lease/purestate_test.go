package lease

import (
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// count has a model's steps counted.
func count(steps *int, actions map[string]func(*rapid.T)) map[string]func(*rapid.T) {
	for name, do := range actions {
		if name != "" {
			actions[name] = func(t *rapid.T) { *steps++; do(t) }
		}
	}
	return actions
}

// The circuit against its rule: it is open from the first failure that comes
// circuitPatience after the last answered question was asked, until the next answer.
func TestCircuit_AgainstAModel(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		c := &circuit{log: slog.New(slog.DiscardHandler), answered: now}
		asked, open, closed := now, false, time.Time{}
		ask := func(answer bool) func(*rapid.T) {
			return func(t *rapid.T) {
				began := now
				now = now.Add(time.Duration(rapid.IntRange(0, int(circuitAnswer/time.Millisecond)).Draw(t, "ms")) * time.Millisecond)
				var err error
				if !answer {
					err = errors.New("silence")
				}
				wait := c.heard(began, now, err)
				if answer {
					if open {
						closed = now
					}
					asked, open = began, false
				} else if now.Sub(asked) >= circuitPatience {
					open = true
				}
				require.Equal(t, open, c.open.Load())
				require.True(t, !open || wait == circuitHurry, "a dead etcd is asked in a hurry")
				require.Equal(t, !closed.IsZero(), c.closed.Load() != 0)
				now = now.Add(wait)
			}
		}
		t.Repeat(count(&steps, map[string]func(*rapid.T){"answer": ask(true), "silence": ask(false), "more": ask(false)}))
	})
	t.Logf("%d steps", steps)
}

// gateModel is who stands where.
type gateModel struct {
	g               *gates
	waiting, inside map[string]int
	gate            map[string]*gate
}

func (m *gateModel) Check(t *rapid.T) {
	known := 0
	for i := range m.g.shards {
		known += len(m.g.shards[i].of)
	}
	busy := 0
	for user, n := range m.waiting {
		require.LessOrEqual(t, m.inside[user], 1, "starts of %s inside at once", user)
		require.LessOrEqual(t, n+m.inside[user], maxAtGate)
		if n+m.inside[user] > 0 {
			busy++
			require.True(t, m.inside[user] == 1 || len(m.gate[user].free) == 1, "%s: all wait, and nobody may go in", user)
		}
	}
	require.Equal(t, busy, known, "gates that nobody uses are taken down")
}

func TestGates_AgainstAModel(t *testing.T) {
	steps := 0
	user := rapid.SampledFrom([]string{"a", "b", "c"})
	rapid.Check(t, func(t *rapid.T) {
		m := &gateModel{newGates(), map[string]int{}, map[string]int{}, map[string]*gate{}}
		t.Repeat(count(&steps, map[string]func(*rapid.T){
			"": m.Check,
			"come": func(t *rapid.T) {
				u := user.Draw(t, "user")
				for range rapid.SampledFrom([]int{1, 2, maxAtGate}).Draw(t, "how many") {
					at, waited, err := m.g.join(u)
					require.Equal(t, m.waiting[u]+m.inside[u] >= maxAtGate, err != nil)
					if err != nil {
						return
					}
					require.Equal(t, m.waiting[u]+m.inside[u] > 0, waited)
					m.waiting[u]++
					m.gate[u] = at
				}
			},
			"go in": func(t *rapid.T) {
				u := user.Draw(t, "user")
				if m.waiting[u] == 0 {
					return
				}
				select {
				case <-m.gate[u].free:
					m.waiting[u]--
					m.inside[u]++
				default:
					require.Equal(t, 1, m.inside[u])
				}
			},
			"give up": func(t *rapid.T) {
				if u := user.Draw(t, "user"); m.waiting[u] > 0 {
					m.waiting[u]--
					m.g.gone(u)
				}
			},
			"leave": func(t *rapid.T) {
				if u := user.Draw(t, "user"); m.inside[u] > 0 {
					m.inside[u]--
					m.g.leave(u)
				}
			},
		}))
	})
	t.Logf("%d steps", steps)
}

// What the pool is told to keep follows the starts, up at once and down slowly, and it
// never revokes more than it may.
func TestPace_AgainstItsRules(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Now()
		p, now, revoked := &pace{last: begin}, begin, 0
		for range rapid.IntRange(1, 6).Draw(t, "phases") {
			rate := rapid.SampledFrom([]float64{0, 1, 40, 500, 5000, 50_000}).Draw(t, "starts a second")
			looks := rapid.IntRange(1, 300).Draw(t, "looks")
			want, left := 0, 0
			for range looks {
				steps++
				step := time.Duration(rapid.IntRange(1, 500).Draw(t, "ms")) * time.Millisecond
				now = now.Add(step)
				taken := int64(math.Round(rate * step.Seconds()))
				want, left = p.look(now, taken)
				require.GreaterOrEqual(t, want, poolMin)
				require.LessOrEqual(t, want, poolMax)
				atOnce := int(float64(taken) / step.Seconds() / 2 * poolAhead.Seconds())
				require.GreaterOrEqual(t, want, min(poolMax, atOnce), "half of a sudden crowd is believed at once")
				n := rapid.IntRange(0, left).Draw(t, "revoked")
				p.revoked(n)
				revoked += n
				most := now.Sub(begin).Seconds()*poolRevokes + poolGrants
				require.LessOrEqual(t, float64(revoked), most)
				granting := rapid.IntRange(0, poolGrants).Draw(t, "granting")
				more := grants(want, rapid.IntRange(0, 2*want).Draw(t, "waiting"), granting)
				require.True(t, more >= 0 && more+granting <= poolGrants, "%d grants beside %d", more, granting)
			}
			if looks > 200 { // 50 s on average: long enough to forget what was before
				goal := max(poolMin, min(poolMax, rate*poolAhead.Seconds()))
				require.InDelta(t, goal, want, goal/2+2, "at %v a second", rate)
			}
		}
	})
	t.Logf("%d steps", steps)
}

// recent remembers for a span at least, unless there are too many, and for two at most.
func TestRecent_AgainstAModel(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		const span, most = time.Minute, 5
		now := time.Now()
		r := newRecent[int, int](span, most)
		r.now, r.turned = func() time.Time { return now }, now
		type memory struct {
			value int
			at    time.Time
			since int // puts after it
		}
		model := map[int]*memory{}
		key := rapid.IntRange(0, 9)
		t.Repeat(count(&steps, map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), rapid.IntRange(1, 1000).Draw(t, "value")
				for _, m := range model {
					m.since++
				}
				model[k] = &memory{v, now, 0}
				r.put(k, v)
				require.LessOrEqual(t, len(r.young), most)
				require.LessOrEqual(t, len(r.old), most)
			},
			"drop": func(t *rapid.T) {
				k := key.Draw(t, "key")
				delete(model, k)
				r.drop(k)
			},
			"pass": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 50).Draw(t, "seconds")) * time.Second)
			},
			"get": func(t *rapid.T) {
				k := key.Draw(t, "key")
				v, ok := r.get(k)
				m := model[k]
				switch {
				case m == nil:
					require.False(t, ok, "%d was never put, or dropped", k)
				case ok:
					require.Equal(t, m.value, v)
					require.Less(t, now.Sub(m.at), 2*span)
				default:
					require.True(t, now.Sub(m.at) >= span || m.since >= most, "%d is forgotten after %v and %d others", k, now.Sub(m.at), m.since)
				}
			},
		}))
	})
	t.Logf("%d steps", steps)
}

// Marks against their rule: those of the youngest streams that were evicted, each
// once, and a client of any name is recognised by its own alone.
func TestCooldown_MarksAgainstAModel(t *testing.T) {
	steps := 0
	names := rapid.SampledFrom([]string{"", "a", "b", "s-a", "d-a", "a/b"})
	rapid.Check(t, func(t *rapid.T) {
		k := keys{"/p"}
		var ends []ending
		var sessions, devices []string // that must be marked
		for range rapid.IntRange(0, 70).Draw(t, "ends") {
			steps++
			h := held{session: names.Draw(t, "session"), mod: int64(len(ends))}
			device := names.Draw(t, "device")
			h.value = recordOn(nonce{byte(len(ends) + 1)}, h.session, device)
			reason := rapid.SampledFrom([]Reason{ReasonEvicted, ReasonReplaced, ReasonExpired}).Draw(t, "reason")
			ends = append(ends, ending{h, reason})
			if reason == ReasonEvicted {
				sessions, devices = append(sessions, h.session), append(devices, device)
			}
		}
		sessions, devices = sessions[max(0, len(sessions)-maxCooled):], devices[max(0, len(devices)-maxCooled):]
		want := map[string]bool{}
		for i := range sessions {
			for _, key := range k.cooldowns("maya", sessions[i], devices[i]) {
				want[key] = true
			}
		}
		got := k.marks("maya", ends)
		require.Len(t, got, len(want), "each once")
		for _, key := range got {
			require.True(t, want[key])
		}
		for _, one := range k.cooldowns("maya", names.Draw(t, "mine"), "") {
			require.NotContains(t, k.cooldowns("maya", "", names.Draw(t, "yours")), one, "a session is no device")
		}
	})
	t.Logf("%d steps", steps)
}

func recordOn(n nonce, session, device string) []byte {
	return stored(record{Nonce: n, Started: 1, TTL: 90, Session: session, Device: &Device{ID: device}})
}
