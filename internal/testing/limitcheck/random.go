package limitcheck

import (
	"fmt"
	"math/rand/v2"
)

// randomValues are the values of the attributes of random streams; "" for a missing one.
// Short lists make streams count for the same limit often.
var randomValues = map[string][]string{
	"device.id": {"", "d1", "d2", "d3", "d4"}, "device.type": {"", "tv", "phone"}, "content.id": {"", "a", "b"},
	"content.type": {"", "live", "vod"}, "profile": {"", "kids", "adults"}, "labels.member": {"", "extra", "owner"},
}

// attributeOrder is the order in which random values are drawn, so that a seed determines them.
var attributeOrder = []string{"device.id", "device.type", "content.id", "content.type", "profile", "labels.member"}

func oneOf[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// RandomAttributes returns attributes of a stream.
func RandomAttributes(rng *rand.Rand) Attributes {
	as := Attributes{Values: map[string][]string{}, Priority: oneOf(rng, 4, defaultPriority, defaultPriority, 6)}
	for _, a := range attributeOrder {
		as.set(a, oneOf(rng, randomValues[a]...))
	}
	for _, label := range []string{"orange", "blue"} {
		if rng.IntN(3) == 0 {
			as.Values["content.labels"] = append(as.Values["content.labels"], label)
		}
	}
	return as
}

// RandomPlan returns a valid plan with one to four named limits.
func RandomPlan(rng *rand.Rand) Plan {
	p := Plan{
		Limit: 2 + rng.IntN(4), OnLimit: randomOnLimit(rng),
		Count: oneOf(rng, "streams", "streams", "streams", "content", "devices"),
	}
	for i := range 1 + rng.IntN(4) {
		p.Limits = append(p.Limits, randomLimit(rng, fmt.Sprint("limit-", i)))
	}
	return p
}

func randomOnLimit(rng *rand.Rand) string {
	return oneOf(rng, "deny", replaceOldest, replaceOldest, replaceLowest)
}

func randomLimit(rng *rand.Rand, name string) Limit {
	l := Limit{
		Name: name, Limit: oneOf(rng, 0, 1, 1, 1, 2, 2, 2, 3), OnLimit: randomOnLimit(rng), Observe: rng.IntN(6) == 0,
		Count: oneOf(rng, "streams", "streams", "streams", "content", "devices", "profiles"),
		Per:   oneOf(rng, "", "", "profile", "content.id", "device.type"),
	}
	if l.Limit == 0 {
		l.OnLimit = "deny"
	}
	if l.Per == countedAttribute[l.Count] {
		l.Per = ""
	}
	l.Where = map[string]Values{}
	for range rng.IntN(3) {
		a, values := "content.labels", []string{"", "orange", "blue"}
		if rng.IntN(4) > 0 {
			a = oneOf(rng, "device.type", "content.type", "labels.member")
			values = randomValues[a]
		}
		first := rng.IntN(len(values))
		some := values[first : first+1+rng.IntN(len(values)-first)]
		if rng.IntN(2) == 0 {
			l.Where[a] = Values{Not: some}
		} else {
			l.Where[a] = Values{In: some}
		}
	}
	return l
}
