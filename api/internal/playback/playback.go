// Package playback issues the playback tokens that the callers of starts and heartbeats request, and
// serves the public keys.
package playback

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/token"
	"streamcount/token/formats"
)

// JWKSPath is the path of the public keys.
const JWKSPath = "/.well-known/jwks.json"

// An Issuer issues tokens in several formats. A nil Issuer issues none.
type Issuer struct {
	JWT     *token.Issuer
	Formats func() *formats.Formats // the formats besides JWT, or nil
}

// Requested is a set of formats.
type Requested uint8

// The formats.
const (
	jwt Requested = 1 << iota
	akamai
	secureLink
	cloudFront
)

var names = map[string]Requested{"jwt": jwt, "akamai": akamai, "secure-link": secureLink, "cloudfront": cloudFront}

const location = "query.token"

func (i *Issuer) formats() formats.Formats {
	if i.Formats == nil {
		return formats.Formats{}
	}
	return *i.Formats()
}

// Parse returns the formats that the values of the query parameter token name.
func (i *Issuer) Parse(values []string) (Requested, *problem.Problem) {
	if i == nil {
		return 0, problem.Invalid.New("This service issues no playback tokens. An operator configures them by the setting token-issuer.").
			WithField(location, "no playback tokens are configured")
	}
	var all Requested
	for name := range strings.SplitSeq(strings.Join(values, ","), ",") {
		format := names[name]
		if format == 0 {
			return 0, problem.Invalid.New("Unknown format of playback tokens: want jwt, akamai, secure-link or cloudfront, separated by commas.").
				WithField(location, "expected jwt, akamai, secure-link or cloudfront")
		}
		all |= format
	}
	f := i.formats()
	if all&akamai != 0 && f.Akamai == nil || all&secureLink != 0 && f.SecureLink == nil || all&cloudFront != 0 && f.CloudFront == nil {
		return 0, problem.Invalid.New("This format of playback tokens is not configured. An operator configures it by the setting token-formats-file.").
			WithField(location, "a format that is not configured")
	}
	return all, nil
}

// CheckStart returns a problem if no token could be made for a start of this user with this content.
func (i *Issuer) CheckStart(r Requested, user, content string) *problem.Problem {
	if _, ok := i.JWT.Keys().Signing(time.Now()); r&jwt != 0 && !ok {
		return noKeys()
	}
	f, v := i.formats(), formats.Values{User: user, Content: content}
	if r&akamai != 0 && !f.Akamai.Fits(v) || r&secureLink != 0 && !f.SecureLink.Fits(v) || r&cloudFront != 0 && !f.CloudFront.Fits(v) {
		return problem.Invalid.New("The token is for the path of a content, so the start has to state the content. Between slashes, neither "+
			"the id of the content nor that of the user may have an empty part or a part of dots.").
			WithField("body.content.id", "expected the id of a content, for the path in the token")
	}
	return nil
}

// noKeys is the answer of a node that has not read the keys in etcd yet.
func noKeys() *problem.Problem {
	return problem.Unavailable.New("The node has not read the keys of playback tokens yet. "+problem.RetryAdvice).
		WithHeader("Retry-After", problem.RetryAfterJittered())
}

// Issue returns the tokens for a playback. If some cannot be made, it returns the others, nil for none,
// and an error.
func (i *Issuer) Issue(r Requested, p token.Playback, now time.Time) (*apitype.Token, error) {
	expires := i.JWT.Expiry(p, now)
	out := &apitype.Token{ExpiresAt: apitype.At(expires)}
	v, f := formats.Values{User: p.User, Stream: p.Stream, Content: p.Content, Expires: expires}, i.formats()
	var failed error
	if r&jwt != 0 {
		out.JWT, failed = i.JWT.JWT(p, now)
	}
	if r&akamai != 0 && f.Akamai != nil {
		text, err := f.Akamai.Token(v)
		out.Akamai, failed = text, cmp.Or(failed, err)
	}
	if r&secureLink != 0 && f.SecureLink != nil {
		hash, seconds, err := f.SecureLink.Token(v)
		if failed = cmp.Or(failed, err); err == nil {
			out.SecureLink = &apitype.SecureLink{MD5: hash, Expires: seconds}
		}
	}
	if r&cloudFront != 0 && f.CloudFront != nil {
		cookies, err := f.CloudFront.Cookies(v)
		out.CloudFront, failed = cookies, cmp.Or(failed, err)
	}
	if out.JWT == "" && out.Akamai == "" && out.SecureLink == nil && out.CloudFront == nil {
		return nil, failed
	}
	return out, failed
}

// ServeJWKS answers with the public keys, which anyone may read. A node that has no keys yet answers
// 503, because edges would cache an empty set.
func (i *Issuer) ServeJWKS(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	keys := i.JWT.Keys()
	if len(keys.Entries()) == 0 {
		noKeys().Write(w)
		return
	}
	document, etag, err := keys.JWKS(time.Now())
	if err != nil {
		problem.Internal.New("An internal error occurred.").Write(w)
		return
	}
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("ETag", etag)
	if strings.Contains(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(document) // an error means that the client has disconnected
}
