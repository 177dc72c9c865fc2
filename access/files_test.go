package access

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/testlog"
)

// looking reads the files continuously while the test runs.
func (a *Authenticator) looking(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	files := slices.Clone(a.files)
	if a.viewers != nil {
		for _, r := range a.viewers.issuers.Load().runners() {
			switch source := r.(type) {
			case *keyFile:
				files = append(files, source.files)
			case *secretFile:
				files = append(files, source.files)
			}
		}
	}
	for _, f := range files {
		running.Go(func() { assert.NoError(t, f.Run(ctx, time.Millisecond, a.log)) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, time.Minute, time.Millisecond, what)
}

func keysYAML(entries ...KeyEntry) []byte {
	var b bytes.Buffer
	b.WriteString("keys:\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "- {name: %q, scope: %q, sha256: %q}\n", e.Name, e.Scope, e.SHA256)
	}
	return b.Bytes()
}

// replace replaces the file at path atomically, as mv does.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", content, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// An invalid file does not change the keys, and is logged once.
func TestKeys_BrokenFileKeepsTheOld(t *testing.T) {
	old, oldEntry, err := NewKey("old", "all")
	require.NoError(t, err)
	young, youngEntry, err := NewKey("young", "operator")
	require.NoError(t, err)
	path, log := file(t, keysYAML(oldEntry)), &testlog.Buffer{}
	a := newAuthenticator(t, Config{KeysFile: path, Log: slog.New(slog.NewTextHandler(log, nil))})
	a.looking(t)
	broken := []struct{ content, says string }{
		{"keys: [oops", "not a keys file"},
		{"", "no keys"}, // as between the truncation and the write of an editor
		{string(keysYAML(oldEntry, oldEntry)), "two keys named old"},
		{"keys: # " + young, "line 1 has an API key itself"},
	}
	for _, b := range broken {
		replace(t, path, []byte(b.content))
		eventually(t, b.says, func() bool { return strings.Contains(log.String(), b.says) })
		c, err := a.as("Bearer " + old)
		require.NoError(t, err, b.says)
		assert.Equal(t, Caller{Kind: Service, Name: "old"}, c)
	}
	replace(t, path, keysYAML(youngEntry))
	eventually(t, "the new key is good", func() bool { _, err := a.as("Bearer " + young); return err == nil })
	_, err = a.as("Bearer " + old)
	require.ErrorIs(t, err, ErrCredential, "the old one was removed")
	assert.Equal(t, len(broken), strings.Count(log.String(), "level=ERROR"), "%s", log)
	assert.NotContains(t, log.String(), young)
}

// Kubernetes mounts the file behind two symbolic links, and replaces that of the directory.
func TestKeys_DirectoryBehindALink(t *testing.T) {
	young, youngEntry, err := NewKey("young", "read")
	require.NoError(t, err)
	_, oldEntry, err := NewKey("old", "all")
	require.NoError(t, err)
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	for version, entry := range map[string]KeyEntry{"..1": oldEntry, "..2": youngEntry} {
		require.NoError(t, os.Mkdir(at(version), 0o700))
		require.NoError(t, os.WriteFile(at(version, "keys.yaml"), keysYAML(entry), 0o600))
	}
	require.NoError(t, os.Symlink("..1", at("..data")))
	require.NoError(t, os.Symlink(filepath.Join("..data", "keys.yaml"), at("keys.yaml")))
	a := newAuthenticator(t, Config{KeysFile: at("keys.yaml")})
	a.looking(t)
	require.NoError(t, os.Symlink("..2", at("..data_tmp")))
	require.NoError(t, os.Rename(at("..data_tmp"), at("..data")))
	eventually(t, "the new key is good", func() bool { _, err := a.as("Bearer " + young); return err == nil })
}

// A key in place of its hash is not printed.
func TestKeys_FileWithAKeyInIt(t *testing.T) {
	key, entry, err := NewKey("a", "all")
	require.NoError(t, err)
	for _, content := range []string{
		key, key + ": x", "keys: {" + key + ": all}", "keys: [*" + key + "]", "keys: []\n# " + key,
		"keys: [{name: " + key + ", scope: all, sha256: " + entry.SHA256 + "}]",
		"keys: [{name: a, scope: " + key + ", sha256: " + entry.SHA256 + "}]",
		"keys: [{name: a, scope: all, sha256: " + key + "}]",
		"keys: [{name: a, scope: all, " + key[:30] + ": x}]",
	} {
		_, err := readKeys([]byte(content))
		require.ErrorContains(t, err, "an API key itself", content)
		assert.NotContains(t, err.Error(), key[:12])
	}
	ring, err := readKeys([]byte("keys: []"))
	require.NoError(t, err, "an empty list is valid and accepts no key")
	assert.Empty(t, ring)
}

// A JWKS file and a secret change while the service runs. Tokens that the old keys verified are
// not accepted from the cache.
func TestTokens_FilesChange(t *testing.T) {
	old, young := newIssuer(t, "old", "RS256"), newIssuer(t, "young", "EdDSA")
	cfg := tokensBy(t, old)
	a := newAuthenticator(t, Config{Tokens: cfg})
	a.looking(t)
	oldToken, youngToken := "Bearer "+old.sign(t, goodClaims(), nil), "Bearer "+young.sign(t, goodClaims(), nil)
	_, err := a.as(oldToken)
	require.NoError(t, err)
	replace(t, cfg.JWKSFile, jwks(t, young))
	eventually(t, "the new key is good", func() bool { _, err := a.as(youngToken); return err == nil })
	_, err = a.as(oldToken)
	require.ErrorIs(t, err, ErrCredential)

	secrets := [][]byte{bytes.Repeat([]byte("a"), 32), bytes.Repeat([]byte("b"), 32)}
	byHash := make([]string, 2)
	for i, s := range secrets {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, goodClaims()).SignedString(s)
		require.NoError(t, err)
		byHash[i] = "Bearer " + token
	}
	cfg.JWKSFile, cfg.SecretFile = "", file(t, secrets[0])
	b := newAuthenticator(t, Config{Tokens: cfg})
	b.looking(t)
	_, err = b.as(byHash[0])
	require.NoError(t, err)
	replace(t, cfg.SecretFile, secrets[1])
	eventually(t, "the new secret is good", func() bool { _, err := b.as(byHash[1]); return err == nil })
	_, err = b.as(byHash[0])
	require.ErrorIs(t, err, ErrCredential)
	_, err = b.as(oldToken)
	require.ErrorIs(t, err, ErrCredential, "with a secret no other algorithm is taken")
}

// All bytes of a secret count, except one line end: a random secret may end in bytes that are
// spaces.
func TestTokens_SecretsMayBeginAndEndInSpaces(t *testing.T) {
	const most = "sssssssssssssssssssssssssssssss"
	for _, secret := range []string{most + " ", "\n" + most, most + "\n\n"} {
		for _, end := range []string{"", "\n", "\r\n"} {
			if strings.HasSuffix(secret, "\n") && end != "\n" {
				continue // editors add one line end
			}
			a := newAuthenticator(t, Config{Tokens: TokenConfig{
				SecretFile: file(t, []byte(secret+end)), Issuer: "https://id.example", Audience: "streams",
			}})
			token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, goodClaims()).SignedString([]byte(secret))
			require.NoError(t, err)
			_, err = a.as("Bearer " + token)
			require.NoError(t, err, "%q %q", secret, end)
		}
	}
}

// No secret is printed with the value that contains it.
func TestNoSecretIsPrinted(t *testing.T) {
	const canary = "canary-canary-canary-canary-canary-1"
	log := &testlog.Buffer{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	key, entry, err := NewKey("backend", "all")
	require.NoError(t, err)
	cfg := Config{KeysFile: file(t, keysYAML(entry)), Log: logger, Tokens: TokenConfig{
		SecretFile: file(t, []byte(canary)), Issuer: "https://id.example", Audience: "streams",
	}}
	a := newAuthenticator(t, cfg)
	good, err := jwt.NewWithClaims(jwt.SigningMethodHS256, goodClaims()).SignedString([]byte(canary))
	require.NoError(t, err)
	bad, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "maya"}).SignedString([]byte(canary))
	require.NoError(t, err)
	ring, secret := a.keys.Load(), "Bearer "+good
	printed := []any{cfg, a, a.viewers, *ring, &cfg.Tokens}
	for _, header := range []string{"Bearer " + key, secret, "Bearer " + bad, "Bearer " + key + "x", "Basic " + key,
		"Bearer " + good + "x", good, "Bearer " + key + " " + good} {
		c, err := a.as(header)
		printed = append(printed, c, &c, err)
	}
	_, err = New(Config{Tokens: TokenConfig{SecretFile: file(t, []byte(canary[:20])), Issuer: "i", Audience: "a"}})
	require.Error(t, err)
	printed = append(printed, err)
	for _, p := range printed {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			_, err := fmt.Fprintf(log, verb+"\n", p)
			require.NoError(t, err)
		}
		logger.Info("printed", "value", p)
	}
	require.Contains(t, log.String(), "backend", "something was printed")
	parts := append(strings.Split(good, "."), strings.Split(bad, ".")[2], key, key[:12], canary[:12])
	for _, part := range parts {
		assert.NotContains(t, log.String(), part[:12])
	}
}

func TestTokens_LongHeadersAreNotRead(t *testing.T) {
	a := newAuthenticator(t, Config{Tokens: tokensBy(t, newIssuer(t, "k", "ES256"))})
	for _, token := range []string{
		strings.Repeat("a", maxToken+1), strings.Repeat("a.", maxToken), keyPrefix + strings.Repeat("a", maxToken),
	} {
		_, err := a.as("Bearer " + token)
		require.ErrorContains(t, err, "longer than 8192 bytes")
	}
}
