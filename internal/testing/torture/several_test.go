//go:build linux

package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"streamcount/internal/testing/limitcheck"
)

// Some users have plans with several limits, which their clients change. Each has a plan of
// the same name as the user. limitcheck checks their streams at each revision, in place of
// porcupine, whose model has one limit.

const severalSuffix = ".several"

// hasSeveral reports whether a user has a plan with several limits, at least at times.
func hasSeveral(user string) bool { return strings.HasSuffix(user, severalSuffix) }

// severalActions are those of clients of users with several limits.
var severalActions = map[string]int{
	"start": 15, "session": 20, "evict": 40, "replace": 10, "stop": 12, "stop any": 2, "remove": 1, "heartbeat": 10, "list": 3,
	"several limits": 6, "crash": 4,
}

func (r round) severalClients(calls *caller) (out []*userClients) {
	for i := range r.several {
		c := &userClients{
			user: fmt.Sprintf("%s-%03d%s", r.name, i, severalSuffix), caller: calls, several: true, behavior: r.behavior,
			heartbeating: map[int]bool{},
		}
		if c.behavior.weights == nil {
			c.behavior.weights = severalActions
		}
		out = append(out, c)
	}
	return out
}

// setFirstPlan gives the user a plan, before any client starts a stream.
func (c *userClients) setFirstPlan(seed uint64) {
	name := fnv.New64()
	_, _ = name.Write([]byte(c.user)) // never fails
	rng := rand.New(rand.NewPCG(seed, name.Sum64()))
	for _, set := range []func(*op){
		func(o *op) { c.setRandomPlan(o, rng) },
		func(o *op) { c.setOwn(o, map[string]any{"plan": c.user}) },
	} {
		for i := 0; ; i++ {
			o := &op{User: c.user, Node: i % len(c.caller.nodes)}
			if set(o); o.Status == 200 {
				break
			}
		}
	}
}

// setSeveral changes the plan of the user, or the override that names it.
func (c *userClients) setSeveral(o *op, rng *rand.Rand) {
	switch n := rng.IntN(8); n {
	case 0:
		o.Kind = kindSeveral
		c.caller.do(context.Background(), o, request{http.MethodDelete, "/limits/users/" + c.user, "", 0})
	case 1:
		c.setOwn(o, map[string]any{"limit": rng.IntN(4)})
	case 2:
		c.setOwn(o, map[string]any{"plan": c.user, "limits": map[string]int{"limit-0": rng.IntN(3)}})
	case 3:
		c.setOwn(o, map[string]any{"plan": c.user})
	default:
		c.setRandomPlan(o, rng)
	}
}

func (c *userClients) setRandomPlan(o *op, rng *rand.Rand) {
	c.putRule(o, "/plans/"+c.user, limitcheck.RandomPlan(rng))
}

func (c *userClients) setOwn(o *op, override map[string]any) {
	c.putRule(o, "/limits/users/"+c.user, override)
}

func (c *userClients) putRule(o *op, path string, rule any) {
	o.Kind = kindSeveral
	text, err := json.Marshal(rule)
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	c.caller.do(context.Background(), o, request{http.MethodPut, path, string(text), 0})
}

// describe adds random attributes to the body of a start.
func describe(body map[string]any, o *op) {
	as := limitcheck.RandomAttributes(rand.New(rand.NewPCG(uint64(o.N), 3)))
	o.Attributes = &as
	optional := func(of map[string]any, member, value string) {
		if value != "" {
			of[member] = value
		}
	}
	content, device := map[string]any{"title": fmt.Sprint(o.N)}, map[string]any{}
	optional(content, "id", as.Value("content.id"))
	optional(content, "type", as.Value("content.type"))
	if labels := as.Values["content.labels"]; len(labels) > 0 {
		content["labels"] = labels
	}
	optional(device, "id", as.Value("device.id"))
	optional(device, "type", as.Value("device.type"))
	optional(body, "profile", as.Value("profile"))
	body["content"], body["device"], body["priority"], body["labels"] = content, device, as.Priority, as.Labels()
}

// A severalState is the state of a user with several limits from a revision on.
type severalState struct {
	rev  int64
	seen time.Duration
	limitcheck.State
}

// applySeveral checks a revision against plans with several limits.
func (b *revisionChecker) applySeveral(rev int64, seen time.Duration, events []event) {
	changes := make([]limitcheck.Change, len(events))
	users := map[string]bool{}
	for i, e := range events {
		changes[i] = limitcheck.Change{Key: e.key, Value: e.value, Put: e.put}
		for _, kind := range []string{"/users/", "/limits/", "/plans/"} { // the plan has the name of the user
			if rest, ok := strings.CutPrefix(e.key, b.prefix+kind); ok {
				user, _, _ := strings.Cut(rest, "/")
				users[user] = hasSeveral(user)
			}
		}
	}
	for _, wrong := range b.limits.Apply(rev, changes) {
		b.errorf("%s", wrong)
	}
	for user, several := range users {
		if several {
			b.states[user] = append(b.states[user], severalState{rev, seen, b.limits.State(user)})
		}
	}
}

// checkSeveralRefusal checks that a start under several limits was refused because of them,
// as they were at some moment between call and answer.
func (c *checker) checkSeveralRefusal(o *op) {
	if o.Status != 403 || !hasSeveral(o.User) {
		return
	}
	r := limitcheck.Request{Attributes: *o.Attributes, Session: o.Session, Evict: o.Evict}
	for _, replaced := range c.tries[o.Replaces] {
		r.Replaces = append(r.Replaces, replaced.nonce)
	}
	all := c.states[o.User]
	for i, st := range all {
		over := i+1 < len(all) && c.notAfter(all[i+1].rev, all[i+1].seen) < o.Call
		if !over && c.notBefore(st.rev) <= o.Return && st.MayRefuse(r) {
			return
		}
	}
	c.errorf("refused, and at each moment the limits held: %v", o)
}
