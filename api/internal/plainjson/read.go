// Package plainjson reads and writes the JSON of the most frequent calls without
// reflection. It reads only bodies in the plain form, which is what encoders write: the
// known members, each at most once, and strings without escapes. All other bodies have to be
// read by the general decoder, which also explains what is wrong with a body.
package plainjson

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"streamcount/api/apitype"
)

const (
	maxText  = 200 // characters of ids, by the schema
	maxPlan  = 64
	maxLabel = 64
)

// ReadHeartbeats reads the body of a batch of heartbeats. It reports false for a body that is
// not in the plain form or does not match the schema.
func ReadHeartbeats(body []byte) (*apitype.Heartbeats, bool) {
	r := reader{body}
	if !r.take('{') || string(r.text()) != "heartbeats" || !r.take(':') || !r.take('[') {
		return nil, false
	}
	heartbeats := make([]apitype.Heartbeat, 0, min(bytes.Count(body, []byte{'{'}), apitype.MaxBatch))
	for more := true; more; more = r.take(',') {
		if len(heartbeats) == apitype.MaxBatch {
			return nil, false
		}
		heartbeat, ok := r.heartbeat()
		if !ok {
			return nil, false
		}
		heartbeats = append(heartbeats, heartbeat)
	}
	return &apitype.Heartbeats{Heartbeats: heartbeats}, r.take(']') && r.take('}') && r.atEnd()
}

// ReadStart reads the body of a start. It reports false for a body that is not in the plain
// form or does not match the schema.
func ReadStart(body []byte) (*apitype.Start, bool) {
	r, out := reader{body}, new(apitype.Start)
	var device, content bool
	ok := r.object(func(name []byte) (ok bool) {
		switch string(name) {
		case "session":
			return r.member(&out.Session, maxText)
		case "replaces":
			var id string // a list is not in the plain form
			ok = out.Replaces == nil && r.member(&id, maxText)
			out.Replaces = apitype.StreamIDs{id}
			return ok
		case "profile":
			return r.member(&out.Profile, maxText)
		case "network":
			return r.member(&out.Network, maxText)
		case "priority":
			ok = out.Priority == nil
			out.Priority = r.digit()
			return ok && out.Priority != nil
		case "labels":
			ok = out.Labels == nil
			out.Labels = r.labels()
			return ok && out.Labels != nil
		case "plan":
			return r.member(&out.Plan, maxPlan)
		case "onLimit":
			return r.member(&out.OnLimit, maxText) && slices.Contains([]string{"deny", "replace-oldest"}, out.OnLimit)
		case "device":
			out.Device, ok = r.device()
			return ok && first(&device)
		case "content":
			out.Content, ok = r.content()
			return ok && first(&content)
		}
		return false
	})
	return out, ok && r.atEnd()
}

// ReadStop reads the body of a stop. It reports false for a body that is not in the plain
// form or does not match the schema.
func ReadStop(body []byte) (*apitype.Stop, bool) {
	r, out := reader{body}, new(apitype.Stop)
	ok := r.object(func(name []byte) bool {
		if string(name) != "streamId" || out.StreamID != nil {
			return false
		}
		text := r.text()
		out.StreamID = new(string(text))
		return text != nil && utf8.RuneCount(text) <= maxText
	})
	return out, ok && r.atEnd()
}

func (r *reader) device() (*apitype.Device, bool) {
	out := new(apitype.Device)
	ok := r.object(func(name []byte) bool {
		switch string(name) {
		case "id":
			return r.member(&out.ID, maxText)
		case "name":
			return r.member(&out.Name, len(r.rest))
		case "type":
			return r.member(&out.Type, len(r.rest))
		}
		return false
	})
	return out, ok
}

func (r *reader) content() (*apitype.Content, bool) {
	out := new(apitype.Content)
	ok := r.object(func(name []byte) bool {
		switch string(name) {
		case "id":
			return r.member(&out.ID, maxText)
		case "title":
			return r.member(&out.Title, len(r.rest))
		case "type":
			return r.member(&out.Type, maxLabel)
		case "labels":
			ok := out.Labels == nil
			out.Labels = r.texts()
			return ok && out.Labels != nil
		}
		return false
	})
	return out, ok
}

// labels reads an object of texts; nil for one that is not in the plain form.
func (r *reader) labels() apitype.Labels {
	out := apitype.Labels{}
	ok := r.object(func(name []byte) bool {
		text := r.text()
		if _, twice := out[string(name)]; twice || len(out) == apitype.MaxLabels {
			return false
		}
		out[string(name)] = string(text)
		n := utf8.RuneCount(text)
		return 0 < n && n <= maxLabel
	})
	if !ok {
		return nil
	}
	return out
}

// texts reads a list of labels that is not empty; nil for one that is not in the plain form.
func (r *reader) texts() []string {
	if !r.take('[') {
		return nil
	}
	var out []string
	for more := true; more; more = r.take(',') {
		text := r.text()
		if text == nil || len(out) == apitype.MaxLabels {
			return nil
		}
		out = append(out, string(text))
	}
	if !r.take(']') {
		return nil
	}
	return out
}

// digit reads a number of one digit; nil for another one.
func (r *reader) digit() *int {
	r.skipSpace()
	if len(r.rest) < 2 || r.rest[0] < '0' || r.rest[0] > '9' {
		return nil
	}
	if next := r.rest[1]; next != ',' && next != '}' && next > ' ' {
		return nil
	}
	n := int(r.rest[0] - '0')
	r.rest = r.rest[1:]
	return &n
}

// heartbeat reads an object with the two members of a heartbeat, in any order.
func (r *reader) heartbeat() (b apitype.Heartbeat, ok bool) {
	var user, stream []byte
	if !r.take('{') {
		return b, false
	}
	for i := range 2 {
		if i > 0 && !r.take(',') {
			return b, false
		}
		name := r.text()
		if !r.take(':') {
			return b, false
		}
		value := r.text()
		switch {
		case value == nil || utf8.RuneCount(value) > maxText:
			return b, false
		case user == nil && string(name) == "userId":
			user = value
		case stream == nil && string(name) == "streamId":
			stream = value
		default:
			return b, false
		}
	}
	return apitype.Heartbeat{UserID: string(user), StreamID: string(stream)}, r.take('}')
}

// first sets *seen, and reports whether it was not set before.
func first(seen *bool) bool {
	if *seen {
		return false
	}
	*seen = true
	return true
}

// A reader reads tokens. After a method has reported false or nil, its position is
// undefined.
type reader struct{ rest []byte }

// take reads a character after white space.
func (r *reader) take(c byte) bool {
	r.skipSpace()
	if len(r.rest) == 0 || r.rest[0] != c {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

func (r *reader) atEnd() bool {
	r.skipSpace()
	return len(r.rest) == 0
}

func (r *reader) skipSpace() {
	for len(r.rest) > 0 && r.rest[0] <= ' ' {
		switch r.rest[0] {
		case ' ', '\t', '\n', '\r':
			r.rest = r.rest[1:]
		default:
			return
		}
	}
}

// object reads an object, and calls member after the name of each member.
func (r *reader) object(member func(name []byte) bool) bool {
	if !r.take('{') {
		return false
	}
	if r.take('}') {
		return true
	}
	for more := true; more; more = r.take(',') {
		if name := r.text(); name == nil || !r.take(':') || !member(name) {
			return false
		}
	}
	return r.take('}')
}

// member reads the value of a string member, which must be the first of its name and have
// at most maxLength characters. An empty string is not read, because it does not show
// whether there was one before.
func (r *reader) member(out *string, maxLength int) bool {
	text := r.text()
	if len(text) == 0 || *out != "" || utf8.RuneCount(text) > maxLength {
		return false
	}
	*out = string(text)
	return true
}

// text reads a string without escapes, and returns its content, or nil if there is none.
func (r *reader) text() []byte {
	if !r.take('"') {
		return nil
	}
	var all byte
	for i, c := range r.rest {
		switch all |= c; {
		case c == '"':
			text := r.rest[:i:i]
			r.rest = r.rest[i+1:]
			if all >= utf8.RuneSelf && !utf8.Valid(text) {
				return nil
			}
			return text
		case c == '\\' || c < ' ':
			return nil
		}
	}
	return nil
}
