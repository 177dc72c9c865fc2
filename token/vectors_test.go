package token

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	payloadOfRFC7515 = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	keyOfA1          = `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`
	keyOfA3          = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
		"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`
	keyOfRFC8037 = `{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
		"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
)

func readJWK(t *testing.T, text string) Key {
	t.Helper()
	var k Key
	require.NoError(t, json.Unmarshal([]byte(text), &k))
	return k
}

// The keys of the RFCs, as Key reads them, make and verify the signatures of the RFCs.
func TestVectors(t *testing.T) {
	for name, v := range map[string]struct {
		key, input, signature string
		repeatable            bool // whether the algorithm has one signature only
	}{
		"RFC 7515, A.1": {keyOfA1, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + payloadOfRFC7515,
			"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", true},
		"RFC 7515, A.3": {keyOfA3, "eyJhbGciOiJFUzI1NiJ9." + payloadOfRFC7515,
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", false},
		"RFC 8037, A.4": {keyOfRFC8037, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
			"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", true},
	} {
		t.Run(name, func(t *testing.T) {
			k := readJWK(t, v.key)
			method := jwt.GetSigningMethod(string(k.Algorithm))
			made, err := method.Sign(v.input, k.private)
			require.NoError(t, err)
			if v.repeatable {
				assert.Equal(t, v.signature, encode(made))
			}
			published, err := base64.RawURLEncoding.DecodeString(v.signature)
			require.NoError(t, err)
			for _, signature := range [][]byte{made, published} {
				require.NoError(t, method.Verify(v.input, signature, verifyingKey(t, k)))
				signature[7] ^= 1
				assert.Error(t, method.Verify(v.input, signature, verifyingKey(t, k)))
			}
		})
	}
}

// The thumbprint of RFC 8037, A.3; that of the key of RFC 7515, A.3 was computed with Python.
func TestVectors_Thumbprint(t *testing.T) {
	assert.Equal(t, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", readJWK(t, keyOfRFC8037).ID)
	assert.Equal(t, "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", readJWK(t, keyOfA3).ID)
}
