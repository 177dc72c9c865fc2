package profile

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"streamcount/access"
	"streamcount/lease/userid"
)

// The own cookie of a profile carries an identity to requests that do not have the token. Its
// value is v1.PAYLOAD.MAC: the base64url of the user, the session, the time of issue and the
// further claims, separated by zero bytes, and the base64url of a MAC of the profile's name and
// the encoded payload.
const cookieVersion = "v1."

// maxCookie is the maximum number of bytes of a cookie's value. Browsers ignore a cookie of
// more than 4096 bytes with its name and attributes.
const maxCookie = 3500

// A cookieConfig describes the cookie that the edge sets.
type cookieConfig struct {
	name        string
	path        string
	maxAge      time.Duration // in whole seconds
	sameSite    http.SameSite
	partitioned bool
	insecure    bool
}

func (c *cookieConfig) sameSiteNone() bool { return c.sameSite == http.SameSiteNoneMode }

// cookieClaims is the content of an own cookie.
type cookieClaims struct {
	User    string
	Session string // before content, agent and network are mixed in
	Issued  time.Time
	more    string // [moreClaims] in JSON, or ""
}

// moreClaims are the claims of a token on which limits depend. Without them a stream that a
// request with the cookie starts would have other limits than one that the token starts.
type moreClaims struct {
	Plan       string             `json:"p,omitempty"`
	Limit      *int               `json:"l,omitempty"`
	Attributes *access.Attributes `json:"a,omitempty"`
	Claims     map[string]string  `json:"c,omitempty"` // those that the profile refers to
}

func (p *Profile) isOwnCookie(s source) bool {
	return p.cookie != nil && s.place == inCookie && s.name == p.cookie.name
}

// cookieFor returns the cookie to set, or nil if the request has it already and it is not
// older than half of its maximum age.
func (p *Profile) cookieFor(l login, session string, r Request, key []byte, now time.Time) *http.Cookie {
	claims := cookieClaims{User: l.caller.Name, Session: session, Issued: now, more: p.moreOf(l)}
	if value, n := cookieValue(r.Header["Cookie"], p.cookie.name); n == 1 {
		sent, ok := p.openCookie(value, key, now)
		fresh := now.Sub(sent.Issued) < p.cookie.maxAge/2
		sent.Issued = now
		if ok && fresh && sent == claims {
			return nil
		}
	}
	value := p.sealCookie(claims, key)
	if len(value) > maxCookie {
		return nil
	}
	return &http.Cookie{
		Name: p.cookie.name, Value: value, Path: p.cookie.path, MaxAge: int(p.cookie.maxAge / time.Second),
		Secure: !p.cookie.insecure, HttpOnly: true, SameSite: p.cookie.sameSite, Partitioned: p.cookie.partitioned,
	}
}

// moreOf returns the further claims of a cookie in JSON.
func (p *Profile) moreOf(l login) string {
	more := moreClaims{Plan: l.caller.Plan, Limit: l.caller.Limit}
	if a := l.caller.Attributes; len(a.Labels) > 0 || a.Priority != nil || a.Profile != "" || a.OnlyProfile {
		more.Attributes = &a
	}
	for _, name := range p.claims {
		if value := l.token.Text(name); value != "" {
			if more.Claims == nil {
				more.Claims = map[string]string{}
			}
			more.Claims[name] = value
		}
	}
	if more.Plan == "" && more.Limit == nil && more.Attributes == nil && more.Claims == nil {
		return ""
	}
	text, err := json.Marshal(more)
	if err != nil { // texts and numbers only
		return ""
	}
	return string(text)
}

// sealCookie returns the value of a cookie.
func (p *Profile) sealCookie(c cookieClaims, key []byte) string {
	payload := cookieVersion + base64.RawURLEncoding.EncodeToString(
		[]byte(c.User+"\x00"+c.Session+"\x00"+strconv.FormatInt(c.Issued.Unix(), 10)+"\x00"+c.more))
	return payload + "." + p.cookieMAC(payload, key)
}

func (p *Profile) cookieMAC(payload string, key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("edge cookie\x00" + p.Name + "\x00" + payload))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// openCookie returns the claims of a cookie whose MAC is valid and that has not expired.
func (p *Profile) openCookie(value string, key []byte, now time.Time) (cookieClaims, bool) {
	dot := strings.LastIndexByte(value, '.')
	if len(key) == 0 || len(value) > maxCookie || dot < 0 || !strings.HasPrefix(value, cookieVersion) {
		return cookieClaims{}, false
	}
	// The encoded texts are compared, because several texts decode to the same bytes.
	if !hmac.Equal([]byte(value[dot+1:]), []byte(p.cookieMAC(value[:dot], key))) || dot < len(cookieVersion) {
		return cookieClaims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(value[len(cookieVersion):dot])
	if err != nil {
		return cookieClaims{}, false
	}
	parts := strings.SplitN(string(payload), "\x00", 4)
	if len(parts) != 4 {
		return cookieClaims{}, false
	}
	seconds, err := strconv.ParseInt(parts[2], 10, 64)
	c := cookieClaims{User: parts[0], Session: parts[1], Issued: time.Unix(seconds, 0), more: parts[3]}
	const skew = time.Minute // between the clocks of nodes
	valid := err == nil && userid.Valid(c.User) && c.Session != "" && now.Sub(c.Issued) < p.cookie.maxAge && c.Issued.Sub(now) < skew
	return c, valid
}

func (c *cookieClaims) claims() (more moreClaims) {
	if c.more != "" {
		_ = json.Unmarshal([]byte(c.more), &more) // the MAC is valid, so the edge wrote it
	}
	return more
}

func (more *moreClaims) caller(user string) access.Caller {
	caller := access.Caller{Kind: access.Viewer, Name: user, Plan: more.Plan, Limit: more.Limit}
	if more.Attributes != nil {
		caller.Attributes = *more.Attributes
	}
	return caller
}
