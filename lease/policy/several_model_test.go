package policy

import (
	"slices"

	"pgregory.net/rapid"
)

// properties is the model of the attributes of a stream.
type properties struct {
	values   map[Attribute][]string
	priority int
}

func drawProperties(t *rapid.T) properties {
	p := properties{map[Attribute][]string{}, rapid.IntRange(4, 6).Draw(t, "priority")}
	for _, a := range []Attribute{AttrDeviceID, AttrDeviceType, AttrContentID, AttrProfile, AttrNetwork, "labels.q"} {
		if v := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, string(a)); v != "" {
			p.values[a] = []string{v}
		}
	}
	p.values[AttrContentLabels] = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b"}), 0, 2, rapid.ID[string]).Draw(t, "labels")
	return p
}

func (p properties) attributes() *Attributes {
	one := func(a Attribute) string { return append(p.values[a], "")[0] }
	return &Attributes{
		DeviceID: one(AttrDeviceID), DeviceType: one(AttrDeviceType), ContentID: one(AttrContentID), Profile: one(AttrProfile),
		Network: one(AttrNetwork), ContentLabels: p.values[AttrContentLabels], Labels: map[string]string{"q": one("labels.q")},
		Priority: p.priority,
	}
}

func drawLimit(t *rapid.T, name string) Limit {
	l := Limit{
		Name:    name,
		Limit:   rapid.IntRange(0, 3).Draw(t, "limit"),
		Count:   rapid.SampledFrom([]Counting{CountStreams, CountStreams, CountContent, CountDevices, CountProfiles, CountNetworks}).Draw(t, "count"),
		OnLimit: rapid.SampledFrom([]OnLimit{Deny, ReplaceOldest, ReplaceOldest, ReplaceLowest}).Draw(t, "onLimit"),
		Per:     rapid.SampledFrom([]Attribute{"", "", AttrProfile, AttrContentID}).Draw(t, "per"),
	}
	if l.Limit == 0 {
		l.OnLimit = Deny
	}
	if l.Per == l.Count.attribute() {
		l.Per = ""
	}
	attributes := rapid.SampledFrom([]Attribute{AttrDeviceType, AttrContentLabels, "labels.q"})
	for _, a := range rapid.SliceOfNDistinct(attributes, 0, 2, rapid.ID[Attribute]).Draw(t, "where") {
		list := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"", "a", "b"}), 1, 2, rapid.ID[string]).Draw(t, "values")
		if rapid.Bool().Draw(t, "not") {
			l.Where = append(l.Where, Condition{Attribute: a, Not: list})
		} else {
			l.Where = append(l.Where, Condition{Attribute: a, In: list})
		}
	}
	return l
}

// model states the rules for several limits independently of their implementation. The
// streams are known by their index, and the new one by the number of the others.
type model struct {
	props  []properties
	limits []Limit
}

func (m model) first(i int, a Attribute) string {
	return append(slices.Clone(m.props[i].values[a]), "")[0]
}

func (m model) selects(l Limit, i int) bool {
	for _, c := range l.Where {
		values := m.props[i].values[c.Attribute]
		if len(values) == 0 {
			values = []string{""}
		}
		in, not := false, false
		for _, v := range values {
			in = in || slices.Contains(c.In, v)
			not = not || slices.Contains(c.Not, v)
		}
		if len(c.In) > 0 && !in || not {
			return false
		}
	}
	newest := len(m.props) - 1
	return l.Per == "" || m.first(i, l.Per) == m.first(newest, l.Per)
}

// unit returns the same value for two streams that count once.
func (m model) unit(l Limit, i int) any {
	a := map[Counting]Attribute{CountContent: AttrContentID, CountDevices: AttrDeviceID, CountProfiles: AttrProfile, CountNetworks: AttrNetwork}[l.Count]
	if v := m.first(i, a); v != "" {
		return v
	}
	return i
}

func (m model) count(l Limit, set []int) int {
	units := map[any]bool{}
	for _, i := range set {
		if m.selects(l, i) {
			units[m.unit(l, i)] = true
		}
	}
	return len(units)
}

// violated returns the limits that do not hold for a set, given the bounds by name.
func (m model) violated(set []int, bounds map[string]int) []Limit {
	return slices.DeleteFunc(slices.Clone(m.limits), func(l Limit) bool {
		return l.Observe || !m.selects(l, len(m.props)-1) || m.count(l, set) <= bounds[l.Name]
	})
}

// eligible reports whether stream i may end for a limit while the streams of set remain.
func (m model) eligible(l Limit, i int, set []int) bool {
	newest := len(m.props) - 1
	if !m.selects(l, i) || m.unit(l, i) == m.unit(l, newest) {
		return false
	}
	return l.OnLimit == ReplaceOldest || l.OnLimit == ReplaceLowest && !slices.ContainsFunc(set, func(j int) bool {
		return j != newest && m.selects(l, j) && m.unit(l, j) == m.unit(l, i) && m.props[j].priority >= m.props[newest].priority
	})
}

// subsets calls f with all subsets of set.
func subsets(set []int, f func([]int)) {
	for bits := range 1 << len(set) {
		var sub []int
		for k, i := range set {
			if bits>>k&1 == 1 {
				sub = append(sub, i)
			}
		}
		f(sub)
	}
}

// A drawn case of several limits.
type severalCase struct {
	model
	rule   Rule
	held   []Stream
	start  Start
	bounds map[string]int
	mine   int // the index of the session's stream, or -1
	stay   []int
}

func drawSeveral(t *rapid.T) severalCase {
	onLimit := rapid.SampledFrom([]OnLimit{Deny, ReplaceOldest, ReplaceLowest}).Draw(t, "onLimit")
	plan := &Plan{Limit: rapid.IntRange(0, 6).Draw(t, "total"), OnLimit: onLimit}
	for i := range rapid.IntRange(1, 4).Draw(t, "limits") {
		plan.Limits = append(plan.Limits, drawLimit(t, string(rune('a'+i))))
		plan.Limits[i].Observe = rapid.IntRange(0, 5).Draw(t, "observe") == 0
	}
	c := severalCase{rule: Rule{Limit: plan.Limit, EvictionAllowed: onLimit != Deny, Several: plan}, mine: -1}
	n := rapid.IntRange(0, 5).Draw(t, "held")
	for i := range n {
		st := stream(i, i+1, "")
		st.Index = i
		p := drawProperties(t)
		st.Attributes, st.Expired = p.attributes(), rapid.IntRange(0, 4).Draw(t, "expired") == 0
		c.props, c.held = append(c.props, p), append(c.held, st)
	}
	p := drawProperties(t)
	c.props = append(c.props, p)
	c.start = Start{Attributes: p.attributes(), Evict: rapid.IntRange(0, 3).Draw(t, "evict") > 0}
	if n > 0 && rapid.IntRange(0, 2).Draw(t, "takesOver") == 0 {
		c.mine = rapid.IntRange(0, n-1).Draw(t, "mine")
		c.start.Session, c.held[c.mine].Session = "tv", "tv"
	}
	for range rapid.IntRange(0, 2).Draw(t, "replaces") {
		c.start.Replaces = append(c.start.Replaces, [12]byte{byte(rapid.IntRange(0, n).Draw(t, "nonce"))})
	}
	c.limits = append([]Limit{{Name: TotalLimit, Limit: c.rule.Limit, OnLimit: onLimit}}, plan.Limits...)
	all := []int{}
	for i, st := range c.held {
		all = append(all, i)
		if i != c.mine && !slices.Contains(c.start.Replaces, st.Nonce) {
			c.stay = append(c.stay, i)
		}
	}
	c.bounds = map[string]int{}
	for _, l := range c.limits {
		c.bounds[l.Name] = l.Limit
		if c.mine >= 0 {
			c.bounds[l.Name] = max(l.Limit, c.count(l, all))
		}
	}
	return c
}
