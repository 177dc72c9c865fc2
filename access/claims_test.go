package access

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func TestVectors_ClaimsAndTimes(t *testing.T) { // V24
	key, _ := signer(t, "k", "ES384")
	raw := func(claims string) string {
		head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES384","kid":"k"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		signature, err := jwt.SigningMethodES384.Sign(head, key.key)
		require.NoError(t, err)
		return head + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	sub := func(value string) string {
		return raw(fmt.Sprintf(`{"iss":"https://p.example","aud":"streams","exp":%d%s}`, time.Now().Add(time.Hour).Unix(), value))
	}
	exp := func(value string) string {
		return raw(`{"iss":"https://p.example","aud":"streams","sub":"maya"` + value + `}`)
	}
	vector{
		authFile: oneIssuer(", maxAge: 24h"),
		pages:    map[string][]byte{"https://p.example/keys": keySet(t, key.jwk(t))},
		tokens: func() map[string]string {
			iat := fmt.Sprintf(`,"iat":%d`, time.Now().Unix())
			return map[string]string{
				"9007199254740993": sub(`,"sub":9007199254740993` + iat), "Ünï 日本": sub(`,"sub":"Ünï 日本"` + iat),
				strings.Repeat("x", 128): sub(`,"sub":"` + strings.Repeat("x", 128) + `"` + iat),
			}
		},
		rejected: func() map[string]string {
			iat := fmt.Sprintf(`,"iat":%d`, time.Now().Unix())
			ms := time.Now().Add(time.Hour).UnixMilli()
			return map[string]string{
				sub(iat):                                               "its sub is missing",
				sub(iat + `,"sub":null`):                               "its sub is missing",
				sub(iat + `,"sub":""`):                                 "its sub is empty",
				sub(iat + `,"sub":1.5`):                                "its sub is a number, but not a whole one",
				sub(iat + `,"sub":1e3`):                                "its sub is a number, but not a whole one",
				sub(iat + `,"sub":-7`):                                 "its sub is a number, but not a whole one",
				sub(iat + `,"sub":true`):                               "its sub is true or false",
				sub(iat + `,"sub":{}`):                                 "its sub is an object",
				sub(iat + `,"sub":[]`):                                 "its sub is a list",
				sub(iat + `,"sub":"a\u0000"`):                          "its sub is not a user id: it has a control character",
				sub(iat + `,"sub":"a\n"`):                              "its sub is not a user id: it has a control character",
				sub(iat + `,"sub":"\u007f"`):                           "its sub is not a user id: it has a control character",
				sub(iat + `,"sub":"\ud83d"`):                           "its sub is not a user id: it has a character that is not valid Unicode",
				sub(iat + `,"sub":"` + strings.Repeat("x", 129) + `"`): "its sub is not a user id: it has 129 bytes",

				exp(iat):                                 "its exp is missing",
				exp(iat + `,"exp":null`):                 "its exp is missing",
				exp(iat + `,"exp":0`):                    "its exp is missing",
				exp(iat + `,"exp":"9999999999"`):         "its exp is not a number",
				exp(iat + `,"exp":1e300`):                "its exp is not a time",
				exp(iat + `,"exp":1e999`):                "its exp is not a time",
				exp(iat + `,"exp":99999999999999999999`): "its exp is not a time",
				exp(iat + `,"exp":-1`):                   "its exp is not a time",
				exp(iat + fmt.Sprintf(`,"exp":%d`, ms)):  "its exp is in milliseconds",
				exp(iat + fmt.Sprintf(`,"exp":%d`, time.Now().Add(-31*time.Second).Unix())):              "it has expired",
				exp(iat + fmt.Sprintf(`,"exp":%d,"nbf":%d`, time.Now().Unix()+60, time.Now().Unix()+40)): "it is not valid yet",
				exp(fmt.Sprintf(`,"exp":%d,"iat":%d`, time.Now().Unix()+60, time.Now().Unix()+40)):       "it was issued in the future",
				exp(iat + fmt.Sprintf(`,"exp":%d`, time.Now().Add(25*time.Hour).Unix())):                 "it lives longer than 24h0m0s",
				exp(fmt.Sprintf(`,"exp":%d`, time.Now().Add(time.Hour).Unix())):                          "its iat is missing",
				raw(`[1]`): "it is not a JWT",
			}
		},
	}.run(t)
}

func jsonNumber(text string) json.Number { return json.Number(text) }
