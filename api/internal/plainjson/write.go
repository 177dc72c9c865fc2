package plainjson

import (
	"encoding/json"
	"strconv"

	"streamcount/api/apitype"
)

// AppendStream appends s as encoding/json writes it.
func AppendStream(b []byte, s *apitype.Stream) []byte {
	begin := len(b)
	b = appendText(b, `,"id":`, s.ID)
	b = appendText(b, `,"handle":`, s.Handle)
	b = appendTime(b, `,"startedAt":`, s.StartedAt)
	b = appendTime(b, `,"expiresAt":`, s.ExpiresAt)
	b = appendInt(b, `,"ttlSeconds":`, s.TTLSeconds)
	b = appendInt(b, `,"heartbeatSeconds":`, s.HeartbeatSeconds)
	b = appendText(b, `,"region":`, s.Region)
	b = appendText(b, `,"session":`, s.Session)
	b = appendText(b, `,"via":`, s.Via)
	if s.Device != nil {
		b = appendDevice(append(b, `,"device":`...), s.Device)
	}
	if s.Content != nil {
		b = appendContent(append(b, `,"content":`...), s.Content)
	}
	b = appendText(b, `,"profile":`, s.Profile)
	if len(s.Labels) > 0 {
		b = appendJSON(b, `,"labels":`, s.Labels)
	}
	if s.Priority != nil {
		b = appendInt(b, `,"priority":`, *s.Priority)
	}
	if s.Blocks != nil {
		b = appendJSON(b, `,"blocks":`, s.Blocks)
	}
	if s.Enough != nil {
		b = strconv.AppendBool(append(b, `,"enough":`...), *s.Enough)
	}
	if s.Token != nil {
		b = appendJSON(b, `,"token":`, s.Token)
	}
	if s.Degraded {
		b = append(b, `,"degraded":true`...)
	}
	return endObject(b, begin)
}

// AppendUser appends u as encoding/json writes it.
func AppendUser(b []byte, u *apitype.User) []byte {
	begin := len(b)
	b = appendQuoted(append(b, `,"userId":`...), u.UserID)
	b = appendInt(b, `,"streams":`, u.Streams)
	if u.Counted != nil {
		b = appendInt(b, `,"counted":`, *u.Counted)
	}
	b = appendInt(b, `,"limit":`, u.Limit)
	for i := range u.Active {
		if i == 0 {
			b = append(b, `,"active":[`...)
		} else {
			b = append(b, ',')
		}
		b = AppendStream(b, &u.Active[i])
	}
	if len(u.Active) > 0 {
		b = append(b, ']')
	}
	if u.Stream != nil {
		b = AppendStream(append(b, `,"stream":`...), u.Stream)
	}
	if u.Token != nil {
		b = appendJSON(b, `,"token":`, u.Token)
	}
	b = appendText(b, `,"message":`, u.Message)
	return endObject(b, begin)
}

// AppendHeartbeatsResult appends r as encoding/json writes it. r.Ended is not nil.
func AppendHeartbeatsResult(b []byte, r *apitype.HeartbeatsResult) []byte {
	begin := len(b)
	b = appendInt(b, `,"alive":`, r.Alive)
	if r.Degraded != 0 {
		b = appendInt(b, `,"degraded":`, r.Degraded)
	}
	b = append(b, `,"ended":[`...)
	for i, e := range r.Ended {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuoted(append(b, `{"userId":`...), e.UserID)
		b = appendQuoted(append(b, `,"streamId":`...), e.StreamID)
		b = append(appendQuoted(append(b, `,"reason":`...), e.Reason), '}')
	}
	return endObject(append(b, ']'), begin)
}

func appendDevice(b []byte, d *apitype.Device) []byte {
	begin := len(b)
	b = appendText(b, `,"id":`, d.ID)
	b = appendText(b, `,"name":`, d.Name)
	b = appendText(b, `,"type":`, d.Type)
	return endObject(b, begin)
}

func appendContent(b []byte, c *apitype.Content) []byte {
	begin := len(b)
	b = appendText(b, `,"id":`, c.ID)
	b = appendText(b, `,"title":`, c.Title)
	b = appendText(b, `,"type":`, c.Type)
	if len(c.Labels) > 0 {
		b = appendJSON(b, `,"labels":`, c.Labels)
	}
	return endObject(b, begin)
}

// endObject ends an object whose members, each after a comma, begin at b[begin].
func endObject(b []byte, begin int) []byte {
	if len(b) == begin {
		return append(b, "{}"...)
	}
	b[begin] = '{'
	return append(b, '}')
}

// appendText appends a member, unless text is empty.
func appendText(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return appendQuoted(append(b, name...), text)
}

func appendInt(b []byte, name string, n int) []byte {
	return strconv.AppendInt(append(b, name...), int64(n), 10)
}

// appendTime appends a member, unless t is nil.
func appendTime(b []byte, name string, t *apitype.Time) []byte {
	if t == nil {
		return b
	}
	return t.AppendJSON(append(b, name...))
}

// appendJSON appends a member that most bodies do not have.
func appendJSON(b []byte, name string, value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings, numbers and times can be encoded
	}
	return append(append(b, name...), text...)
}

// appendQuoted appends a string. encoding/json escapes all but the most frequent
// characters.
func appendQuoted(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(text)
			if err != nil {
				panic(err) // every string can be encoded
			}
			return append(b, quoted...)
		}
	}
	b = append(append(b, '"'), text...)
	return append(b, '"')
}
