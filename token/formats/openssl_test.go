package formats

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// OpenSSL generates the key, and verifies the signatures of the policies as the CloudFront
// documentation describes. It rejects an altered policy.
func TestCloudFront_OpenSSL(t *testing.T) {
	openssl := longtest.Program(t, "openssl")
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) error {
		out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		t.Logf("openssl %s: %s", args[0], out)
		return err
	}
	require.NoError(t, run("genrsa", "-out", path("private.pem"), "2048"))
	require.NoError(t, run("rsa", "-in", path("private.pem"), "-pubout", "-out", path("public.pem")))
	private, err := os.ReadFile(path("private.pem"))
	require.NoError(t, err)
	for hash, digest := range map[string]string{"": "-sha1", "sha256": "-sha256"} {
		t.Run(digest, func(t *testing.T) {
			c := CloudFront{PrivateKey: string(private), KeyPairID: "K2JCJMDEHXQW5F", Resource: "https://media.example/vod/{content}/*", Hash: hash}
			require.NoError(t, c.complete())
			cookies, err := c.Cookies(film)
			require.NoError(t, err)
			policy := decodeCookie(t, cookies["CloudFront-Policy"])
			require.NoError(t, os.WriteFile(path("signature"), decodeCookie(t, cookies["CloudFront-Signature"]), 0o600))
			verify := func(policy []byte) error {
				require.NoError(t, os.WriteFile(path("policy"), policy, 0o600))
				return run("dgst", digest, "-verify", path("public.pem"), "-signature", path("signature"), path("policy"))
			}
			require.NoError(t, verify(policy))
			altered := append([]byte(nil), policy...)
			altered[len(altered)-7]++ // the last digit of the time is before "}}}]}"
			assert.Error(t, verify(altered))
		})
	}
}
