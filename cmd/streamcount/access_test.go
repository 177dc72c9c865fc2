package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func runOnce(tb testing.TB, args ...string) string {
	tb.Helper()
	p := launch(tb, nil, args...)
	require.Zero(tb, p.end(tb), p.errOut.String())
	return p.out.String()
}

// newKey creates a key with "keys new", and returns it with its entry for the keys file.
func newKey(tb testing.TB, name, scope string) (key, entry string) {
	tb.Helper()
	out := runOnce(tb, "keys", "new", "--name="+name, "--scope="+scope)
	key, rest, _ := strings.Cut(out, "\n")
	_, entry, found := strings.Cut(rest, ":\n\n")
	require.True(tb, found, out)
	return key, entry
}

// With keys and a certificate, a start requires a key, the id of a stream is sufficient for
// its heartbeat and its stop, and no key is in the log.
func TestServe_WithKeysAndTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) string {
		require.NoError(t, os.WriteFile(path(name), []byte(content), 0o600))
		return path(name)
	}
	backend, backendEntry := newKey(t, "backend", "all")
	reports, reportsEntry := newKey(t, "reports", "read")
	keysFile := write("keys.yaml", "keys:\n"+backendEntry+reportsEntry)
	certPEM, keyPEM, pool := newCertificatePEM(t)
	p := launch(t, nil, "serve", "--listen=127.0.0.1:0", "--data-dir="+path("data"), "--log-level=debug",
		"--auth-keys-file="+keysFile, "--tls-cert="+write("cert.pem", certPEM), "--tls-key="+write("key.pem", keyPEM))
	at := regexp.MustCompile(`serving (https://\S+) on`)
	require.Eventually(t, func() bool { return ended(p) || at.MatchString(p.out.String()) }, time.Minute, 10*time.Millisecond)
	require.Regexp(t, at, p.out.String(), p.errOut.String())
	base := at.FindStringSubmatch(p.out.String())[1] + "/api/v1/streams/users/maya"
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	do := func(method, target, key string, status int) map[string]any {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, base+target, nil)
		require.NoError(t, err)
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, status, resp.StatusCode, "%s %s: %s", method, target, body)
		var out map[string]any
		require.NoError(t, json.Unmarshal(body, &out))
		return out
	}
	do("POST", "/start", "", 401)
	do("POST", "/start", reports, 403)
	do("POST", "/start", backend+"x", 401)
	id := do("POST", "/start", backend, 200)["stream"].(map[string]any)["id"].(string)
	do("GET", "", reports, 200)
	do("POST", "/streams/"+id+"/heartbeat", "", 200)
	do("DELETE", "/streams/"+id, "", 200)

	young, youngEntry := newKey(t, "backend-2", "all")
	write("keys.yaml", "keys:\n"+youngEntry+reportsEntry)
	require.Eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), "POST", base+"/start", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+young)
		resp, err := client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp.StatusCode == 200
	}, time.Minute, 50*time.Millisecond, "the file is read again")
	do("POST", "/start", backend, 401)

	require.Zero(t, p.interrupt(t))
	log := p.out.String() + p.errOut.String()
	assert.Contains(t, log, "service backend")
	for _, secret := range []string{backend, reports, young, id, keyPEM[40:80]} {
		assert.NotContains(t, log, secret[:16])
	}
}

func newCertificatePEM(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "streamcount"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	pool = x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM([]byte(block("CERTIFICATE", der))))
	return block("CERTIFICATE", der), block("PRIVATE KEY", keyDER), pool
}

func TestKeysNew(t *testing.T) {
	var made struct {
		Key   string
		Entry struct{ Name, Scope, SHA256 string }
	}
	require.NoError(t, json.Unmarshal([]byte(runOnce(t, "keys", "new", "--name=backend", "--json")), &made))
	assert.Equal(t, "backend all", made.Entry.Name+" "+made.Entry.Scope)
	assert.NotContains(t, fmt.Sprint(made.Entry), made.Key)
	for _, args := range [][]string{{"--name=a b"}, {"--name=a", "--scope=some"}, {}, {"--name=a", "x"}} {
		p := launch(t, nil, append([]string{"keys", "new"}, args...)...)
		assert.Equal(t, exitUsage, p.end(t), "%v: %s", args, p.errOut.String())
		assert.Equal(t, 1, strings.Count(p.errOut.String(), "\n"))
	}
}
