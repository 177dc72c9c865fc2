package profile

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"streamcount/access"
	"streamcount/lease"
	"streamcount/lease/userid"
)

// A Verifier verifies viewers' tokens. [access.Authenticator] is one.
type Verifier interface {
	VerifyToken(ctx context.Context, token string) (access.Token, error)
}

// A login is the result of one of a profile's sources of users.
type login struct {
	source     source
	credential string
	caller     access.Caller
	token      access.Token // the zero token unless the source has a token
	cookie     *cookieClaims
	claims     map[string]string // that the cookie has from a token
}

// Identify returns who sends a request. The first source of users that is in the request
// decides; if it is not valid, the others are not tried. v is nil if the service has no keys
// for tokens. Profiles sign cookies and derive sessions with key. The error is a [*Rejection]
// of [BadIdentity], or [access.ErrUnavailable] if a token cannot be verified at the moment.
func (p *Profile) Identify(ctx context.Context, r Request, t Target, v Verifier, key []byte, now time.Time) (Identity, error) {
	l, err := p.login(ctx, r, t, v, key, now)
	if err != nil {
		return Identity{}, err
	}
	session, err := p.baseSession(l, r, t, key)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{
		User: l.caller.Name, Caller: l.caller, Session: p.session(session, r, t),
		Device: lease.Device{ID: bounded(l.text(p.deviceID, r, t)), Name: label(l.text(p.deviceName, r, t))},
	}
	if id.Attributes, id.Device.Type, err = p.attributesOf(l, r, t); err != nil {
		return Identity{}, err
	}
	if l.cookie == nil && p.cookie != nil && len(key) > 0 {
		id.Cookie = p.cookieFor(l, session, r, key, now)
	}
	return id, nil
}

func (p *Profile) login(ctx context.Context, r Request, t Target, v Verifier, key []byte, now time.Time) (login, error) {
	for _, s := range p.user {
		value, n := s.find(r, t)
		if n == 0 {
			continue
		}
		if n > 1 {
			return login{}, reject(BadIdentity, "the request has two values of %s", s)
		}
		l := login{source: s, credential: value}
		switch {
		case s.place == inBasic && value == "":
			return login{}, reject(BadIdentity, "basic: want the base64 of NAME:PASSWORD, with a name that is not empty")
		case s.place == inHeader || s.place == inBasic:
			if fault := userid.Fault(value); fault != "" {
				return login{}, reject(BadIdentity, "%s is not a user id: %s", s, fault)
			}
			l.caller = access.Caller{Kind: access.Viewer, Name: value}
			return l, nil
		case p.isOwnCookie(s):
			claims, ok := p.openCookie(value, key, now)
			if !ok {
				return login{}, reject(BadIdentity, "%s is not valid or has expired", s)
			}
			more := claims.claims()
			l.cookie, l.caller, l.claims = &claims, more.caller(claims.User), more.Claims
			return l, nil
		}
		var err error
		l.token, err = verify(ctx, v, s, value)
		l.caller = l.token.Caller
		return l, err
	}
	var names []string
	for _, s := range p.user {
		names = append(names, s.String())
	}
	return login{}, reject(BadIdentity, "the request has no credential: want one of %s", strings.Join(names, ", "))
}

func verify(ctx context.Context, v Verifier, s source, value string) (access.Token, error) {
	if v == nil {
		return access.Token{}, reject(BadIdentity, "%s: viewers' tokens are not configured", s)
	}
	token, err := v.VerifyToken(ctx, value)
	switch {
	case errors.Is(err, access.ErrCredential):
		return access.Token{}, reject(BadIdentity, "%s: %s", s, err)
	case err != nil:
		return access.Token{}, err
	case token.Caller.Kind != access.Viewer || !userid.Valid(token.Caller.Name):
		return access.Token{}, reject(BadIdentity, "%s is not a viewer's token", s)
	}
	return token, nil
}

// text returns the value of a source that is optional, or "".
func (l login) text(s source, r Request, t Target) string {
	value, _ := l.find(s, r, t)
	return value
}

// find returns the value of a source, and how many values there are.
func (l login) find(s source, r Request, t Target) (value string, n int) {
	switch {
	case s.place != inClaim:
		return s.find(r, t)
	case l.cookie != nil:
		return l.claims[s.name], 1
	}
	return l.token.Text(s.name), 1
}

// maxText is the maximum number of bytes of an id, and of characters of a label.
const maxText = 200

// bounded returns id, or its hash if it is too long or is not UTF-8 without control characters.
func bounded(id string) string { return boundedTo(id, maxText) }

// boundedTo is bounded for another maximum number of bytes, at least 43.
func boundedTo(id string, maximum int) string {
	if len(id) <= maximum && utf8.ValidString(id) && !strings.ContainsFunc(id, isControl) {
		return id
	}
	return hashOf(id)
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

// label returns text for people, cut to its maximum length.
func label(text string) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	n := 0
	for i := range text {
		if n == maxText {
			return text[:i]
		}
		n++
	}
	return text
}
