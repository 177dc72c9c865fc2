package access

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"streamcount/lease/userid"

	"github.com/golang-jwt/jwt/v5"
)

// A claimPath is the list of member names that leads to a claim, usually one.
type claimPath []string

func (p claimPath) String() string { return strings.Join(p, ".") }

// in returns the claim's value, or nil.
func (p claimPath) in(claims map[string]any) any {
	var value any = claims
	for _, name := range p {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	return value
}

// Times are seconds since 1970. A time after maxTime, in the year 5138, is in milliseconds
// by mistake.
const (
	maxTime         = 1e11
	maxMilliseconds = 1e14
)

// timeOf decodes a claim that is a time, and reports whether the claim exists.
func timeOf(claims jwt.MapClaims, name string) (time.Time, bool, error) {
	value := claims[name]
	if value == nil {
		return time.Time{}, false, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, false, reject(ReasonTime, "its %s is not a number", name)
	}
	seconds, err := number.Float64()
	switch {
	case err == nil && seconds == 0: // some providers write 0 for none
		return time.Time{}, false, nil
	case err == nil && seconds > maxTime && seconds <= maxMilliseconds:
		return time.Time{}, false, reject(ReasonTime, "its %s is in milliseconds: want seconds", name)
	case err != nil || seconds < 0 || seconds > maxTime:
		return time.Time{}, false, reject(ReasonTime, "its %s is not a time in seconds since 1970", name)
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)), true, nil
}

// checkTimes checks exp, nbf and iat, and returns exp.
func (c *providerConfig) checkTimes(claims jwt.MapClaims, now time.Time) (expires time.Time, err error) {
	var times [3]time.Time
	var there [3]bool
	for i, name := range []string{"exp", "nbf", "iat"} {
		if times[i], there[i], err = timeOf(claims, name); err != nil {
			return expires, err
		}
	}
	expires, issued := times[0], times[2]
	switch {
	case !there[0]:
		err = reject(ReasonTime, "its exp is missing")
	case !now.Before(expires.Add(c.leeway)):
		err = reject(ReasonTime, "it has expired")
	case there[1] && now.Add(c.leeway).Before(times[1]):
		err = reject(ReasonTime, "it is not valid yet")
	case there[2] && now.Add(c.leeway).Before(issued):
		err = reject(ReasonTime, "it was issued in the future")
	case c.maxAge > 0 && !there[2]:
		err = reject(ReasonTime, "its iat is missing, which the max age of tokens needs")
	case c.maxAge > 0 && expires.Sub(issued) > c.maxAge:
		err = reject(ReasonTime, "it lives longer than %s from iat to exp", c.maxAge)
	}
	return expires, err
}

// tokenType is a token's typ in the form in which types are compared: RFC 7515 allows
// media types without "application/".
func tokenType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

func (c *providerConfig) checkHeader(header map[string]any) error {
	if _, critical := header["crit"]; critical {
		return reject(ReasonMalformed, "it has a critical header, and none is supported")
	}
	if c.types == nil {
		return nil
	}
	if typ, _ := header["typ"].(string); slices.Contains(c.types, tokenType(typ)) {
		return nil
	}
	return reject(ReasonType, "its typ is not allowed for its issuer")
}

// anyOf reports whether accept holds for a claim, or for an element of a claim that is a list.
func anyOf(claim any, good func(any) bool) bool {
	if list, ok := claim.([]any); ok {
		return slices.ContainsFunc(list, good)
	}
	return good(claim)
}

func (c *providerConfig) checkAudience(claims jwt.MapClaims) error {
	if c.anyAudience {
		return nil
	}
	missing := make([]string, 0, 1)
	for _, rule := range c.audience {
		claim := rule.claim.in(claims)
		if anyOf(claim, func(v any) bool { text, ok := v.(string); return ok && slices.Contains(rule.values, text) }) {
			return nil
		}
		if claim == nil {
			missing = append(missing, rule.claim.String())
		}
	}
	if len(missing) == len(c.audience) {
		return reject(ReasonAudience, "its %s is missing, which names the audience", strings.Join(missing, " and "))
	}
	return reject(ReasonAudience, "it is for another audience")
}

func (c *providerConfig) checkRequired(claims jwt.MapClaims) error {
	for _, r := range c.require {
		claim := claims[r.claim]
		if text, ok := claim.(string); ok && (r.claim == "scope" || r.claim == "scp") {
			var list []any
			for _, one := range strings.Fields(text) {
				list = append(list, one)
			}
			claim = list
		}
		switch {
		case claim == nil:
			return reject(ReasonClaim, "its %s is missing", r.claim)
		case !anyOf(claim, func(v any) bool { return isOneOf(v, r.values) }):
			return reject(ReasonClaim, "its %s is not what its issuer's must be", r.claim)
		}
	}
	return nil
}

// isOneOf reports whether value is in want. Lists and objects never are.
func isOneOf(claim any, values []any) bool {
	switch claim.(type) {
	case string, bool, json.Number:
		return slices.Contains(values, claim)
	}
	return false
}

var (
	wholeNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)
	digits      = regexp.MustCompile(`^[0-9]{1,19}$`)
)

// userIDFault returns why id is not a user id, or "" if it is one. Decoders of JSON put
// U+FFFD in place of characters that are not valid, so two users may have the same id with it.
func userIDFault(id string) string {
	if at := strings.IndexRune(id, utf8.RuneError); at >= 0 {
		return fmt.Sprintf("it has a character that is not valid Unicode at byte %d", at)
	}
	return userid.Fault(id)
}

// userID returns the user id in a token, with the prefix of its issuer.
func (c *providerConfig) userID(claims jwt.MapClaims) (string, error) {
	var id, wrong string
	switch v := c.user.in(claims).(type) {
	case nil:
		wrong = "is missing"
	case string:
		if id = v; id == "" {
			wrong = "is empty"
		}
	case json.Number:
		if id = v.String(); !digits.MatchString(id) {
			wrong = "is a number, but not a whole one of at most 19 digits"
		}
	case bool:
		wrong = "is true or false, not text"
	case []any:
		wrong = "is a list, not text"
	default:
		wrong = "is an object, not text"
	}
	if wrong == "" {
		id = c.userPrefix + id
		if fault := userIDFault(id); fault != "" {
			wrong = "is not a user id: " + fault
		}
	}
	if wrong != "" {
		return "", reject(ReasonUser, "its %s %s", c.user, wrong)
	}
	return id, nil
}

const maxLimit = 1_000_000

// callerOf returns the viewer of a token, with plan, limit and the attributes of streams.
func (c *providerConfig) callerOf(claims jwt.MapClaims) (Caller, error) {
	id, err := c.userID(claims)
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{Kind: Viewer, Name: id}
	if plan := c.plan.in(claims); c.plan != nil && plan != nil {
		text, ok := plan.(string)
		if !ok {
			return Caller{}, reject(ReasonUser, "its %s is not text, but it names the plan", c.plan)
		}
		caller.Plan = text
	}
	if claim := c.limit.in(claims); c.limit != nil && claim != nil {
		limit, err := wholeNumberUpTo(claim, maxLimit)
		if err != nil {
			return Caller{}, reject(ReasonUser, "its %s is not a whole number from 0 to %d, but it is the limit", c.limit, maxLimit)
		}
		caller.Limit = &limit
	}
	if caller.Attributes, err = c.attributesOf(claims); err != nil {
		return Caller{}, err
	}
	return caller, nil
}

// wholeNumberUpTo returns a claim that is a whole number from 0 to most.
func wholeNumberUpTo(claim any, most float64) (int, error) {
	number, ok := claim.(json.Number)
	if !ok {
		return 0, strconv.ErrSyntax
	}
	// 5.0 is a whole number too, as some libraries write it.
	f, err := number.Float64()
	if err != nil || f < 0 || f > most || f != math.Trunc(f) {
		return 0, strconv.ErrRange
	}
	return int(f), nil
}
