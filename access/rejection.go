package access

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// A Reason classifies a rejected credential. There are few, so metrics count by them.
type Reason string

// The reasons.
const (
	ReasonHeader      Reason = "header"      // the Authorization header
	ReasonAPIKey      Reason = "api_key"     // an API key that does not exist
	ReasonMalformed   Reason = "malformed"   // not a signed JWT
	ReasonIssuer      Reason = "issuer"      // of no configured issuer
	ReasonType        Reason = "type"        // wrong typ
	ReasonAlgorithm   Reason = "algorithm"   // wrong alg
	ReasonKey         Reason = "key"         // of an unknown key
	ReasonSignature   Reason = "signature"   // wrong signature
	ReasonTime        Reason = "time"        // expired, not valid yet, too long
	ReasonAudience    Reason = "audience"    // another audience
	ReasonClaim       Reason = "claim"       // a required claim
	ReasonUser        Reason = "user"        // no usable user id, or a claim that cannot be used
	ReasonUnavailable Reason = "unavailable" // it could not be checked
)

// A rejection is the error of a credential that is not accepted. Its text may name
// configured claims, and contains no part of the credential.
type rejection struct {
	reason Reason
	text   string
}

func reject(reason Reason, format string, args ...any) error {
	return &rejection{reason, fmt.Sprintf(format, args...)}
}

func (r *rejection) Error() string { return ErrCredential.Error() + ": " + r.text }

// Is makes every rejection an [ErrCredential].
func (r *rejection) Is(target error) bool { return target == ErrCredential }

// ReasonOf returns the class of an error of [Authenticator.Authenticate].
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*rejection](err); ok {
		return r.reason
	}
	return ReasonUnavailable
}

// tokenReasons are the reasons that are counted by issuer.
var tokenReasons = []Reason{
	ReasonMalformed, ReasonIssuer, ReasonType, ReasonAlgorithm, ReasonKey, ReasonSignature, ReasonTime, ReasonAudience,
	ReasonClaim, ReasonUser, ReasonUnavailable,
}

// counts has the number of rejected tokens by reason. Its keys do not change.
type counts map[Reason]*atomic.Int64

func newCounts() counts {
	c := counts{}
	for _, r := range tokenReasons {
		c[r] = new(atomic.Int64)
	}
	return c
}

func (c counts) add(err error) {
	if n := c[ReasonOf(err)]; n != nil {
		n.Add(1)
	}
}

func (c counts) snapshot() map[Reason]int64 {
	out := make(map[Reason]int64, len(c))
	for reason, n := range c {
		out[reason] = n.Load()
	}
	return out
}
