package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"streamcount/internal/testing/etcdsim"
	"streamcount/internal/testing/limitcheck"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// Some users of a simulation have plans with several limits, which change while it runs.
// A limitcheck.Checker checks each revision.
type simPlans struct {
	users   map[string]bool // not modified while the simulation runs
	checker *limitcheck.Checker
	keys    map[string]bool        // those of the last revision
	states  map[string][]timeState // by user with a plan
}

// timeState is a state of a user from a time on.
type timeState struct {
	from time.Time
	limitcheck.State
}

func newSimPlans(cfg simConfig) simPlans {
	fallback := limitcheck.Plan{Limit: cfg.limit, OnLimit: string(policy.ReplaceOldest)}
	p := simPlans{map[string]bool{}, limitcheck.New("/p", fallback), map[string]bool{}, map[string][]timeState{}}
	for i := range cfg.planUsers {
		p.users[simUser(i)] = true
		p.states[simUser(i)] = []timeState{{simBegin, p.checker.State(simUser(i))}}
	}
	return p
}

// hasPlan reports whether user has a plan with several limits, at least at times.
func (p *simPlans) hasPlan(user string) bool { return p.users[user] }

// audit applies the newest revision, and returns what is wrong with it.
func (p *simPlans) audit(e *etcdsim.Etcd) []string {
	var changes []limitcheck.Change
	now := map[string]bool{}
	for _, kv := range e.Locked("/p/") {
		now[string(kv.Key)] = true
		if kv.ModRevision == e.Revision() {
			changes = append(changes, limitcheck.Change{Key: string(kv.Key), Value: kv.Value, Put: true})
		}
	}
	for key := range p.keys {
		if !now[key] {
			changes = append(changes, limitcheck.Change{Key: key})
		}
	}
	p.keys = now
	wrong := p.checker.Apply(e.Revision(), changes)
	for user, all := range p.states {
		p.states[user] = append(all, timeState{time.Now(), p.checker.State(user)})
	}
	return wrong
}

// isRule reports whether a key is that of a rule, which does not expire.
func isRule(key string) bool {
	key = strings.TrimPrefix(key, "/p/")
	return strings.HasPrefix(key, "plans/") || strings.HasPrefix(key, "limits/") || key == "rules"
}

// mayRefuse reports whether a start of user may have been refused at a moment since asked.
func (s *sim) mayRefuse(user string, asked time.Time, r limitcheck.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.plans.states[user]
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].MayRefuse(r) {
			return true
		}
		if all[i].from.Before(asked) {
			return false
		}
	}
	return false
}

// planOf returns a random plan in the form of the service.
func planOf(p limitcheck.Plan) *policy.Plan {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	out := schema.DecodePlan(text)
	if out == nil {
		panic("not a plan: " + string(text))
	}
	return out
}

// describe sets the attributes of a request.
func describe(req *Request, as limitcheck.Attributes) {
	req.Device.ID, req.Device.Type, req.Content.ID = as.Value("device.id"), as.Value("device.type"), as.Value("content.id")
	req.Attributes = policy.StartAttributes{
		ContentType: as.Value("content.type"), ContentLabels: as.Values["content.labels"], Profile: as.Value("profile"),
		Labels: as.Labels(), Priority: &as.Priority,
	}
}

// request returns the part of a request that decides whether it is admitted.
func (v *simViewer) request(req Request, as limitcheck.Attributes) limitcheck.Request {
	r := limitcheck.Request{Attributes: as, Session: req.Session, Evict: req.OnLimit != ""}
	if req.Session != "" || req.Device.ID != "" {
		r.Evict = false // a cool-down may forbid it
	}
	for _, id := range req.Replaces {
		if who, err := v.limiterOf(0).ids.Parse(v.user, id); err == nil {
			r.Replaces = append(r.Replaces, who.Nonce.String())
		}
	}
	return r
}

// changeRules gives users plans with several limits, and changes the rules at random times.
func (s *sim) changeRules() {
	if s.planUsers == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(s.seed, 3))
	end := time.Now().Add(s.length)
	for i := range s.planUsers {
		plan := fmt.Sprint("plan-", i)
		s.changeRule(rng, rules.Set{
			Plans: map[string]*policy.Plan{plan: planOf(limitcheck.RandomPlan(rng))},
			Users: map[string]*policy.Override{simUser(i): {Plan: plan}},
		})
	}
	for time.Now().Before(end) {
		time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Second))))
		plan, other := fmt.Sprint("plan-", rng.IntN(s.planUsers)), fmt.Sprint("plan-", rng.IntN(s.planUsers))
		user := simUser(rng.IntN(s.planUsers))
		set := rules.Set{Plans: map[string]*policy.Plan{}, Users: map[string]*policy.Override{}}
		switch rng.IntN(6) {
		case 0:
			limit := rng.IntN(4)
			set.Users[user] = &policy.Override{Limit: &limit}
		case 1:
			set.Users[user] = nil
		case 2:
			set.Users[user] = &policy.Override{Plan: other, Limits: map[string]int{"limit-0": rng.IntN(3)}}
		default:
			set.Plans[plan] = planOf(limitcheck.RandomPlan(rng))
		}
		s.changeRule(rng, set)
	}
}

func (s *sim) changeRule(rng *rand.Rand, set rules.Set) {
	_, err := s.limiterOf(rng.IntN(len(s.nodes))).Rules().Apply(context.Background(), set, rules.Options{})
	switch {
	case err == nil:
		s.count("rule changes")
	case errors.Is(err, ErrUnavailable):
		s.count("failed rule changes")
	case !errors.Is(err, policy.ErrNoPlan): // the set that contained the plan failed
		s.fault("change of rules: %v", err)
	}
}
