package schema

import (
	"encoding/base64"
	"strconv"

	"streamcount/lease/streamid"
)

// A composer appends JSON to a value. It appends texts as they are.
type composer struct {
	b       []byte
	escapes bool // JSON may escape a text, so the value is not valid
}

func (c *composer) raw(json string) { c.b = append(c.b, json...) }

func (c *composer) number(n int64) { c.b = strconv.AppendInt(c.b, n, 10) }

func (c *composer) nonce(n streamid.Nonce) { c.b = base64.RawURLEncoding.AppendEncode(c.b, n[:]) }

// text appends a member with this beginning, unless its value is empty.
func (c *composer) text(name, value string) {
	if value == "" {
		return
	}
	c.raw(name)
	c.quoted(value)
}

// quoted appends the rest of a text that has begun with a quotation mark.
func (c *composer) quoted(value string) {
	for i := range len(value) {
		if b := value[i]; b < ' ' || b > '~' || b == '"' || b == '\\' {
			c.escapes = true
			return
		}
	}
	c.b = append(append(c.b, value...), '"')
}

// texts appends a member with this beginning and a list of texts, unless the list is empty.
func (c *composer) texts(name string, values []string) {
	if len(values) == 0 {
		return
	}
	c.raw(name)
	for i, value := range values {
		if i > 0 {
			c.raw(`,`)
		}
		c.raw(`"`)
		c.quoted(value)
	}
	c.raw(`]`)
}

// object appends an object of texts: the beginnings of members and their values, in turn.
func (c *composer) object(members ...string) {
	c.raw(`{`)
	begin := len(c.b)
	for i := 0; i < len(members); i += 2 {
		if members[i+1] != "" && len(c.b) > begin {
			c.raw(`,`)
		}
		c.text(members[i], members[i+1])
	}
	c.raw(`}`)
}

func (c *composer) device(d Device) {
	c.object(`"id":"`, d.ID, `"name":"`, d.Name, `"type":"`, d.Type)
}
