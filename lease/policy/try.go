package policy

import "slices"

// A TrialStream is a stream in a [Try]: one that runs, or the new one. Of one that runs,
// only Session and Attributes have an effect.
type TrialStream struct {
	Session    string // "" for none
	Attributes Attributes
	Evict      bool  // as in a [Start]
	Replaces   []int // the indexes of running streams to end
}

// A Trial is the result of a [Try].
type Trial struct {
	Admitted bool
	Limits   []RefusingLimit // those that reject the start; empty if it is admitted
	Ends     []int           // the indexes of the running streams that end, in ascending order
	Observed []string        // as in a [Decision]
}

// Try decides on the start of a stream under a valid plan, while other streams run, oldest
// first. It decides as [Decide] does for a real start, except that no lease has expired, and
// that no cooldown forbids an eviction. It returns a [*MissingAttributesError].
func Try(p Plan, running []TrialStream, next TrialStream) (Trial, error) {
	p = p.WithDefaults()
	var r Rule
	r.setPlan(&p)
	if err := r.CheckRequired(&next.Attributes); err != nil {
		return Trial{}, err
	}
	streams := make([]Stream, len(running))
	for i, t := range running {
		streams[i] = Stream{
			Index: i, Slot: i, Nonce: trialNonce(i), Session: t.Session,
			Device: t.Attributes.DeviceID, Content: t.Attributes.ContentID, Attributes: &t.Attributes,
		}
	}
	s := Start{
		Session: next.Session, Evict: next.Evict && r.MayEvict(),
		Device: next.Attributes.DeviceID, Content: next.Attributes.ContentID, Attributes: &next.Attributes,
	}
	for _, i := range next.Replaces {
		s.Replaces = append(s.Replaces, trialNonce(i))
	}
	d, ok := Decide(r, streams, s)
	if !ok {
		refusal, _ := Refuse(r, streams, s)
		return Trial{Limits: refusal.Limits}, nil
	}
	out := Trial{Admitted: true, Observed: d.Observed}
	for _, e := range d.Endings {
		out.Ends = append(out.Ends, e.Stream.Index)
	}
	slices.Sort(out.Ends)
	return out, nil
}

// trialNonce returns a nonce for the stream with an index. It is not zero.
func trialNonce(i int) [12]byte { return [12]byte{1, byte(i >> 8), byte(i)} }
