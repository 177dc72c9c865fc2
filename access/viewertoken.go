package access

import (
	"context"
	"maps"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// A Token is a viewer's token that was verified.
type Token struct {
	Caller Caller // of kind [Viewer]
	texts  map[string]string
}

const (
	maxTexts     = 32
	maxClaimText = 200 // bytes
)

// Text returns the value of a claim that is text, a number, or true or false; "" if there is no
// such claim. Claims inside other claims, values of more than 200 bytes, and more than 32
// claims of a token (the first 32 by name are kept) are not available.
func (t Token) Text(claim string) string { return t.texts[claim] }

// VerifyToken verifies a viewer's token that did not arrive in an Authorization header. API keys
// are rejected. Errors are [ErrCredential] and [ErrUnavailable].
func (a *Authenticator) VerifyToken(ctx context.Context, token string) (Token, error) {
	switch {
	case len(token) > maxToken:
		return Token{}, reject(ReasonHeader, "it is longer than %d bytes", maxToken)
	case isKey(token):
		return Token{}, reject(ReasonHeader, "it is an API key, not a viewer's token")
	case a.viewers == nil:
		return Token{}, reject(ReasonHeader, "viewers' tokens are not configured here")
	}
	k, err := a.viewers.verify(ctx, token, true)
	if err != nil {
		return Token{}, err
	}
	return Token{Caller: k.caller, texts: k.texts}, nil
}

// textsOf returns the claims for [Token.Text]. The result is not nil.
func textsOf(claims jwt.MapClaims) map[string]string {
	texts := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		switch name {
		case "iss", "aud", "exp", "nbf", "iat":
			continue
		}
		text, fault := scalarText(claims[name])
		if fault == "" && text != "" && len(text) <= maxClaimText && len(texts) < maxTexts {
			texts[name] = text
		}
	}
	return texts
}
