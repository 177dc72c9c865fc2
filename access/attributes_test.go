package access

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/lease/policy"
)

// attributesConfig has claims for all attributes.
func attributesConfig(tb testing.TB) *providerConfig {
	tb.Helper()
	entries, err := readAuthFile([]byte(oneIssuer(`, labels: {tier: "https://x.example/tier", member: [app, member]}, profile: profile, priority: p`)), "/")
	require.NoError(tb, err)
	return &entries[0]
}

func decodeClaims(tb testing.TB, text string) map[string]any {
	tb.Helper()
	claims := map[string]any{}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	require.NoError(tb, decoder.Decode(&claims), text)
	return claims
}

func TestAttributes(t *testing.T) {
	c, three := attributesConfig(t), 3
	tier := func(text string) Attributes {
		return Attributes{OnlyProfile: true, Labels: map[string]string{"tier": text}}
	}
	for claims, want := range map[string]Attributes{
		`{}`: {OnlyProfile: true},
		`{"https://x.example/tier":null,"profile":"","p":null,"app":{"member":""}}`:       {OnlyProfile: true},
		`{"https://x.example/tier":"gold","profile":"kids","p":3,"app":{"member":false}}`: {map[string]string{"tier": "gold", "member": "false"}, &three, "kids", true},
		`{"p":3.0,"profile":7}`:                            {nil, &three, "7", true},
		`{"app":"member"}`:                                 {OnlyProfile: true},
		`{"https://x.example/tier":true}`:                  tier("true"),
		`{"https://x.example/tier":5.0}`:                   tier("5"),
		`{"https://x.example/tier":-0}`:                    tier("0"),
		`{"https://x.example/tier":-0.0}`:                  tier("0"),
		`{"https://x.example/tier":5e1}`:                   tier("50"),
		`{"https://x.example/tier":1.50}`:                  tier("1.5"),
		`{"https://x.example/tier":9007199254740993}`:      tier("9007199254740993"),
		`{"https://x.example/tier":1e-2}`:                  tier("0.01"),
		`{"tier":"gold","labels":{"tier":"x"},"member":1}`: {OnlyProfile: true},
	} {
		got, err := c.attributesOf(decodeClaims(t, claims))
		require.NoError(t, err, claims)
		assert.Equal(t, want, got, claims)
	}
	for claims, want := range map[string]string{
		`{"https://x.example/tier":["gold"]}`:                                "its https://x.example/tier is a list, not text, but it is the label tier",
		`{"https://x.example/tier":[]}`:                                      "is a list",
		`{"https://x.example/tier":{}}`:                                      "its https://x.example/tier is an object, not text, but it is the label tier",
		`{"https://x.example/tier":1e99}`:                                    "is a number that is too large",
		`{"https://x.example/tier":1e999}`:                                   "is a number that is too large",
		`{"https://x.example/tier":1e-99}`:                                   "is a number with too many digits",
		`{"https://x.example/tier":"hunter2\u0000"}`:                         "its https://x.example/tier, which is the label tier, contains a control character",
		`{"https://x.example/tier":"` + strings.Repeat("hunter2", 10) + `"}`: "its https://x.example/tier, which is the label tier, does not have 1 to 64 characters",
		`{"app":{"member":["hunter2"]}}`:                                     "its app.member is a list, not text, but it is the label member",
		`{"profile":["kids"]}`:                                               "its profile is a list, not text, but it is the profile",
		`{"profile":"` + strings.Repeat("hunter2", 30) + `"}`:                "its profile, which is the profile, does not have 1 to 200 characters",
		`{"p":10}`:  "its p is not a whole number from 0 to 9, but it is the priority",
		`{"p":-1}`:  "is not a whole number from 0 to 9",
		`{"p":1.5}`: "is not a whole number from 0 to 9",
		`{"p":"3"}`: "is not a whole number from 0 to 9",
	} {
		_, err := c.attributesOf(decodeClaims(t, claims))
		require.ErrorIs(t, err, ErrCredential, claims)
		assert.Equal(t, ReasonUser, ReasonOf(err), claims)
		assert.ErrorContains(t, err, want, claims)
		assert.NotContains(t, err.Error(), "hunter2")
	}
	got, err := new(providerConfig).attributesOf(decodeClaims(t, `{"tier":"gold","profile":"kids","priority":3,"labels":{"a":"b"}}`))
	require.NoError(t, err)
	assert.Equal(t, Attributes{}, got, "nothing is configured")
}

// The labels of a token are bounded together, as those of a start are.
func TestAttributes_Size(t *testing.T) {
	c := &providerConfig{}
	claims := map[string]any{}
	for i := range policy.MaxLabels {
		name := fmt.Sprint("claim", i)
		c.labels = append(c.labels, labelClaim{name, claimPath{name}})
		claims[name] = strings.Repeat("x", 58) // and 6 bytes of the key: 512 bytes
	}
	_, err := c.attributesOf(claims)
	require.NoError(t, err)
	claims["claim3"] = strings.Repeat("x", 59)
	_, err = c.attributesOf(claims)
	require.ErrorIs(t, err, ErrCredential)
	require.ErrorContains(t, err, "the claims that are labels: all labels together have 513 bytes, more than 512")
}

func TestLabelClaims(t *testing.T) {
	got, err := parseLabelClaims([]string{"tier=https://x.example/t=1", "member=m"})
	require.NoError(t, err)
	assert.Equal(t, []labelClaim{{"tier", claimPath{"https://x.example/t=1"}}, {"member", claimPath{"m"}}}, got)
	for text, want := range map[string]string{
		"tier": "want KEY=CLAIM", "tier=": "want KEY=CLAIM", "": "want KEY=CLAIM", "=x": "is not the key of a label",
		"a/b=x": "is not the key of a label", "tier=a tier=b": "tier is there twice",
		"a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1 i=1": "want at most 8",
	} {
		err := CheckLabelClaims(strings.Split(text, " "))
		require.ErrorContains(t, err, want, text)
	}
}

// Notations of one number have one text, and different texts are different numbers.
func TestAttributes_Numbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(-1<<53, 1<<53).Draw(t, "n")
		plain := strconv.FormatInt(n, 10)
		for _, notation := range []string{plain, plain + ".0", plain + "e0", plain + ".00E+0"} {
			text, fault := numberText(notation)
			require.Empty(t, fault)
			require.Equal(t, plain, text)
		}
		f := rapid.Float64().Draw(t, "f")
		raw, err := json.Marshal(f)
		require.NoError(t, err)
		if text, fault := numberText(string(raw)); fault == "" {
			back, err := strconv.ParseFloat(text, 64)
			require.NoError(t, err)
			require.Equal(t, f+0, back+0)
		}
	})
}

// Every token that is accepted has attributes that a start may have.
func FuzzTokenAttributes(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"https://x.example/tier":"gold","profile":"kids","p":3,"app":{"member":true}}`, `{"https://x.example/tier":[1],"p":"9"}`,
		`{"app":{"member":1e400}}`, `{"app":[{"member":"x"}]}`, `{"profile":"\ud800"}`, `{"https://x.example/tier":-0.0,"p":-0}`,
	} {
		f.Add([]byte(seed))
	}
	c := attributesConfig(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		claims := map[string]any{}
		decoder := json.NewDecoder(strings.NewReader(string(content)))
		decoder.UseNumber()
		if decoder.Decode(&claims) != nil {
			return
		}
		got, err := c.attributesOf(claims)
		if err != nil {
			require.ErrorIs(t, err, ErrCredential)
			require.Equal(t, ReasonUser, ReasonOf(err))
			return
		}
		stated := policy.StartAttributes{Profile: got.Profile, Labels: got.Labels, Priority: got.Priority}
		require.NoError(t, stated.Validate())
		for key, value := range got.Labels {
			require.Contains(t, []string{"tier", "member"}, key)
			require.NotEmpty(t, value)
		}
	})
}
