package profile

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// A source is a part of a request, such as query:token. The zero source is in no request.
type source struct {
	place place
	name  string
}

type place string

const (
	inBearer place = "bearer"
	inBasic  place = "basic" // the user name
	inQuery  place = "query"
	inPath   place = "path"
	inCookie place = "cookie"
	inHeader place = "header"
	inClaim  place = "claim"  // of the viewer's token
	inDerive place = "derive" // a session that is computed
	inText   place = "text"   // the name itself, a constant
)

func (s source) String() string {
	switch {
	case s.name == "":
		return string(s.place)
	case s.place == inText:
		return s.name
	}
	return string(s.place) + ":" + s.name
}

var (
	claimName  = regexp.MustCompile(`^[^\x00-\x1f\x7f]{1,200}$`)
	tokenName  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`) // of cookies and headers
	sourceName = map[place]*regexp.Regexp{
		inQuery: claimName, inClaim: claimName, inCookie: tokenName, inHeader: tokenName,
		inPath: regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`),
	}
)

// parseSource reads a source at one of the places.
func parseSource(text string, places ...place) (source, error) {
	at, name, named := strings.Cut(text, ":")
	s := source{place(at), name}
	pattern := sourceName[s.place]
	switch {
	case !slices.Contains(places, s.place):
	case pattern == nil && named:
	case pattern == nil || pattern.MatchString(name):
		if s.place == inHeader {
			s.name = textproto.CanonicalMIMEHeaderKey(name)
		}
		return s, nil
	}
	want := make([]string, len(places))
	for i, p := range places {
		want[i] = string(p)
		if sourceName[p] != nil {
			want[i] += ":NAME"
		}
	}
	return source{}, fmt.Errorf("%.100q: want one of %s", text, strings.Join(want, ", "))
}

// find returns the value of s in a request, and how many values there are. A value that
// cannot be decoded is "". Claims and derived sessions are in no request.
func (s source) find(r Request, t Target) (value string, n int) {
	switch s.place {
	case inBearer, inBasic:
		return authorization(r.Header["Authorization"], s.place)
	case inQuery:
		return queryValue(t.query, s.name)
	case inPath:
		if t.template != nil && t.template.has(s.name) {
			return t.template.value(t.path, s.name), 1
		}
	case inCookie:
		return cookieValue(r.Header["Cookie"], s.name)
	case inHeader:
		if values := r.Header[s.name]; len(values) > 0 {
			return values[0], len(values)
		}
	case inText:
		return s.name, 1
	}
	return "", 0
}

// authorization returns the credential of a scheme. Several headers count as several values
// whatever their schemes are, because the origin may use another one than the edge.
func authorization(headers []string, scheme place) (value string, n int) {
	if len(headers) == 0 {
		return "", 0
	}
	if len(headers) > 1 {
		return "", len(headers)
	}
	stated, credential, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(stated, string(scheme)) {
		return "", 0
	}
	if scheme == inBearer {
		return credential, 1
	}
	decoded, err := base64.StdEncoding.DecodeString(credential)
	user, _, ok := strings.Cut(string(decoded), ":")
	if err != nil || !ok {
		return "", 1
	}
	return user, 1
}

// queryValue returns the first value of a parameter.
func queryValue(query, name string) (value string, n int) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, text, _ := strings.Cut(pair, "=")
		if key != name {
			if !strings.ContainsAny(key, "%+") {
				continue
			}
			if decoded, err := url.QueryUnescape(key); err != nil || decoded != name {
				continue
			}
		}
		if n++; n == 1 {
			value, _ = url.QueryUnescape(text) // "" if it is not valid
		}
	}
	return value, n
}

// cookieValue returns the first value of a cookie.
func cookieValue(headers []string, name string) (value string, n int) {
	for _, left := range headers {
		for left != "" {
			var pair string
			pair, left, _ = strings.Cut(left, ";")
			key, text, ok := strings.Cut(pair, "=")
			if !ok || strings.TrimSpace(key) != name {
				continue
			}
			if n++; n == 1 {
				value = strings.TrimSpace(text)
			}
		}
	}
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return value, n
}

// first returns the first value of a header.
func first(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}
