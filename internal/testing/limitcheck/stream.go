package limitcheck

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A Stream is a key below a user's prefix.
type Stream struct {
	Key     string
	Nonce   string
	Session string
	Attributes

	revision int64 // of its put
	ended    int64 // the revision of its end; 0 while it runs
	plan     string
	limit    *int
}

func (s *Stream) String() string {
	return fmt.Sprintf("%s at %d (session %q, %v, priority %d)", s.Key, s.revision, s.Session, s.Values, s.Priority)
}

// decodeStream decodes the record of a stream.
func decodeStream(key string, value []byte, revision int64) (*Stream, error) {
	var r struct {
		N string
		S string
		R string
		D struct{ ID, Type string }
		C struct{ ID string }
		A struct {
			Profile, Network, Type string
			Content                []string
			Labels                 map[string]string
			Priority               *int
		}
		P string
		M *int
	}
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("%s is no stream: %w", key, err)
	}
	s := &Stream{Key: key, Nonce: r.N, Session: r.S, revision: revision, plan: r.P, limit: r.M}
	s.Values, s.Priority = map[string][]string{"content.labels": r.A.Content}, defaultPriority
	for attribute, v := range map[string]string{
		"device.id": r.D.ID, "device.type": r.D.Type, "content.id": r.C.ID, "content.type": r.A.Type, "profile": r.A.Profile,
		"network": r.A.Network, "region": r.R,
	} {
		s.set(attribute, v)
	}
	for key, v := range r.A.Labels {
		s.set("labels."+key, v)
	}
	if r.A.Priority != nil {
		s.Priority = *r.A.Priority
	}
	return s, nil
}

const defaultPriority = 5

// set sets the value of an attribute; "" for a missing one.
func (as Attributes) set(attribute, value string) {
	if value != "" {
		as.Values[attribute] = []string{value}
	}
}

// Labels returns the labels by their keys.
func (as Attributes) Labels() map[string]string {
	out := map[string]string{}
	for attribute := range as.Values {
		if key, ok := strings.CutPrefix(attribute, "labels."); ok {
			out[key] = as.first(attribute)
		}
	}
	return out
}

// Value returns the value of an attribute with a single value; "" if it is missing.
func (as Attributes) Value(attribute string) string { return as.first(attribute) }
