package token

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// verifyWithNode verifies a JWT with Node's WebCrypto, which reads the JWKS itself.
const verifyWithNode = `
import { webcrypto as crypto } from "node:crypto"; // global only since Node.js 19
const [jwks, token, secret] = process.argv.slice(2);
const part = (n) => Buffer.from(token.split(".")[n], "base64url");
const header = JSON.parse(part(0));
const jwk = secret ? { kty: "oct", k: secret, alg: "HS256" } : JSON.parse(jwks).keys.find((key) => key.kid === header.kid);
const algorithms = { ES256: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }, EdDSA: { name: "Ed25519" }, HS256: { name: "HMAC", hash: "SHA-256" } };
const algorithm = algorithms[header.alg];
if (header.alg === "EdDSA") delete jwk.alg;
crypto.subtle.importKey("jwk", jwk, algorithm, false, ["verify"])
  .then((key) => crypto.subtle.verify(algorithm, key, part(2), Buffer.from(token.split(".").slice(0, 2).join("."))))
  .then((valid) => console.log(JSON.stringify({ valid, claims: JSON.parse(part(1)) })));
`

func TestSecondImplementation(t *testing.T) {
	longtest.Require(t, "node")
	script := filepath.Join(t.TempDir(), "verify.mjs")
	require.NoError(t, os.WriteFile(script, []byte(verifyWithNode), 0o600))
	verify := func(jwks, token, secret string) (valid bool, user string) {
		out, err := exec.Command("node", script, jwks, token, secret).Output()
		require.NoError(t, err)
		var result struct {
			Valid  bool
			Claims struct{ Sub string }
		}
		require.NoError(t, json.Unmarshal(out, &result))
		return result.Valid, result.Claims.Sub
	}
	for _, a := range []Algorithm{ES256, EdDSA, HS256} {
		t.Run(string(a), func(t *testing.T) {
			k, ring := newTestKey(t, a), &Ring{}
			ring.SetFile([]Key{k})
			text, err := New(Config{Issuer: "https://count.example", Life: time.Minute}, ring).JWT(Playback{User: "maya"}, time.Now())
			require.NoError(t, err)
			jwks, _, err := ring.JWKS(time.Now())
			require.NoError(t, err)
			secret := ""
			if bytes, ok := k.private.([]byte); ok {
				secret = encode(bytes)
			}
			valid, user := verify(string(jwks), text, secret)
			assert.True(t, valid)
			assert.Equal(t, "maya", user)
			b := []byte(text)
			b[len(b)-8] ^= 1 // in the signature
			valid, _ = verify(string(jwks), string(b), secret)
			assert.False(t, valid)
		})
	}
}
