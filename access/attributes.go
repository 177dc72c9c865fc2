package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"streamcount/internal/yamlfile"
	"streamcount/lease/policy"
)

// Attributes are the attributes of streams that a viewer's token determines. Nothing in them
// may be changed, because the requests with one token share them.
type Attributes struct {
	Labels   map[string]string // nil for none
	Priority *int              // 0 to [policy.MaxPriority]; nil for none
	Profile  string            // "" for none
	// OnlyProfile means that the profile comes from the token only: without one in the
	// token there is none.
	OnlyProfile bool
}

// A labelClaim is a claim whose value becomes a label.
type labelClaim struct {
	key   string
	claim claimPath
}

// CheckLabelClaims returns an error unless each text is KEY=CLAIM, with different keys of
// labels, and there are at most [policy.MaxLabels].
func CheckLabelClaims(texts []string) error {
	_, err := parseLabelClaims(texts)
	return err
}

func parseLabelClaims(texts []string) ([]labelClaim, error) {
	var out []labelClaim
	for _, text := range texts {
		key, claim, ok := strings.Cut(text, "=")
		if !ok || claim == "" {
			return nil, fmt.Errorf("label claim %q: want KEY=CLAIM, such as tier=https://id.example/tier", short(text))
		}
		out = append(out, labelClaim{key, claimPath{claim}})
	}
	return out, checkLabelClaims(out)
}

func checkLabelClaims(labels []labelClaim) error {
	if len(labels) > policy.MaxLabels {
		return fmt.Errorf("labels: want at most %d", policy.MaxLabels)
	}
	for i, l := range labels {
		switch {
		case !policy.ValidLabelKey(l.key):
			return fmt.Errorf("labels: %q is not the key of a label: want 1 to %d characters of A-Z a-z 0-9 . _ -",
				short(l.key), policy.MaxLabelKey)
		case slices.ContainsFunc(labels[:i], func(o labelClaim) bool { return o.key == l.key }):
			return fmt.Errorf("labels: %s is there twice", l.key)
		}
	}
	return nil
}

func (c *providerConfig) readLabels(n yamlfile.Node) error {
	return n.Each(func(key string, n yamlfile.Node) error {
		l := labelClaim{key: key}
		err := claimPathIn(n, &l.claim)
		c.labels = append(c.labels, l)
		return err
	})
}

// attributesOf returns the attributes of streams in a token. The claims are optional, and one
// that is "" counts as missing. A claim that cannot be used is an error, because a limit that
// depends on it would not be the one that the issuer intends.
func (c *providerConfig) attributesOf(claims jwt.MapClaims) (Attributes, error) {
	out := Attributes{OnlyProfile: c.profile != nil}
	for _, l := range c.labels {
		text, fault := scalarText(l.claim.in(claims))
		if fault != "" {
			return Attributes{}, reject(ReasonUser, "its %s %s, but it is the label %s", l.claim, fault, l.key)
		}
		if text == "" {
			continue
		}
		if out.Labels == nil {
			out.Labels = make(map[string]string, len(c.labels))
		}
		out.Labels[l.key] = text
	}
	if c.profile != nil {
		text, fault := scalarText(c.profile.in(claims))
		if fault != "" {
			return Attributes{}, reject(ReasonUser, "its %s %s, but it is the profile", c.profile, fault)
		}
		out.Profile = text
	}
	if claim := c.priority.in(claims); c.priority != nil && claim != nil {
		n, err := wholeNumberUpTo(claim, policy.MaxPriority)
		if err != nil {
			return Attributes{}, reject(ReasonUser, "its %s is not a whole number from 0 to %d, but it is the priority",
				c.priority, policy.MaxPriority)
		}
		out.Priority = &n
	}
	return out, c.checkAttributes(out)
}

// checkAttributes returns an error if the attributes of a token exceed the sizes of those of
// a start.
func (c *providerConfig) checkAttributes(as Attributes) error {
	stated := policy.StartAttributes{Profile: as.Profile, Labels: as.Labels, Priority: as.Priority}
	wrong, ok := errors.AsType[*policy.AttributeError](stated.Validate())
	if !ok {
		return nil
	}
	for _, l := range c.labels {
		if wrong.Member == "labels."+l.key {
			return reject(ReasonUser, "its %s, which is the label %s, %s", l.claim, l.key, wrong.Problem)
		}
	}
	if wrong.Member == "profile" {
		return reject(ReasonUser, "its %s, which is the profile, %s", c.profile, wrong.Problem)
	}
	return reject(ReasonUser, "the claims that are labels: %s", wrong.Problem)
}

// scalarText returns the text of a claim that is text, a number or a boolean; "" if there is
// no claim. A list is refused: its order has no meaning, and no limit could match it joined.
func scalarText(claim any) (text, fault string) {
	switch v := claim.(type) {
	case nil:
		return "", ""
	case string:
		return v, ""
	case bool:
		return strconv.FormatBool(v), ""
	case json.Number:
		return numberText(v.String())
	case []any:
		return "", "is a list, not text"
	default:
		return "", "is an object, not text"
	}
}

// integer matches an integer as JSON has it.
var integer = regexp.MustCompile(`^-?[0-9]{1,19}$`)

// maxExact is the number up to which a float64 has every integer.
const maxExact = 1 << 53

// numberText returns the shortest decimal text of a number, the same for 5, 5.0 and 5e0. A
// number that a float64 cannot have exactly is accepted only as an integer of up to 19 digits.
func numberText(number string) (text, fault string) {
	if integer.MatchString(number) {
		if number == "-0" {
			return "0", ""
		}
		return number, ""
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.Abs(f) > maxExact {
		return "", "is a number that is too large"
	}
	if f == 0 { // without the sign
		f = 0
	}
	text = strconv.FormatFloat(f, 'f', -1, 64)
	if len(text) > policy.MaxLabelValue {
		return "", "is a number with too many digits"
	}
	return text, ""
}
