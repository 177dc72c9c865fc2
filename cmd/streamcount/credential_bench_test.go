package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	generate "streamcount/internal/bench/load"
)

// BenchmarkByCredential measures a start and a stop over HTTP by 64 callers: without
// credentials, with an API key, with one token per viewer, and with a new token per start.
func BenchmarkByCredential(b *testing.B) {
	dir := b.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(b, os.WriteFile(path, content, 0o600))
		return path
	}
	key, entry := newKey(b, "backend", "all")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(b, err)
	none := []string{"--auth-none"}
	keys := []string{"--auth-keys-file=" + write("keys.yaml", []byte("keys:\n"+entry))}
	tokens := []string{
		"--auth-jwks-file=" + write("jwks.json", publicKeys(b, private)),
		"--auth-issuer=https://id.example.com", "--auth-audience=streams",
	}
	for _, bm := range []struct {
		name       string
		args       []string
		credential func(user string) string // nil means the same for all
	}{
		{"None", none, func(string) string { return "" }},
		{"Key", keys, func(string) string { return key }},
		{"Token/Known", tokens, nil},
		{"Token/New", tokens, func(user string) string { return sign(b, private, user) }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			_, c := serve(b, append(bm.args, "--data-dir="+b.TempDir(), "--log-level=warn", "--rate-per-key=0")...)
			benchmarkCredential(b, c.server, private, bm.credential)
		})
	}
}

// benchmarkCredential runs b.N starts and stops.
func benchmarkCredential(b *testing.B, server string, private *ecdsa.PrivateKey, credential func(user string) string) {
	b.Helper()
	users := make([]string, 4096)
	for i := range users {
		users[i] = "viewer-" + strconv.Itoa(i)
	}
	credentials := make([]string, len(users))
	for i, user := range users {
		credentials[i] = sign(b, private, user)
	}
	if credential != nil {
		credentials = make([]string, b.N)
		for i := range credentials {
			credentials[i] = credential(users[i%len(users)])
		}
	}
	generator, err := generate.NewClient(server, 10*time.Second)
	require.NoError(b, err)
	var next, failed atomic.Int64
	b.SetParallelism(32) // times GOMAXPROCS
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn := generator.Conn(b.Context())
		defer conn.Close()
		for pb.Next() {
			n := next.Add(1) - 1
			conn.Credential = credentials[n%int64(len(credentials))]
			if !startAndStop(conn, users[n%int64(len(users))]) {
				failed.Add(1)
			}
		}
	})
	b.StopTimer()
	require.Zero(b, failed.Load(), "calls failed")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "starts/s")
}

func startAndStop(conn *generate.Conn, user string) bool {
	base := "/api/v1/streams/users/" + user
	a, err := conn.Do("POST", []byte(base+"/start"), []byte("{}"))
	if err != nil || a.Status != 200 {
		return false
	}
	var started struct{ Stream struct{ ID string } }
	if json.Unmarshal(a.Body, &started) != nil {
		return false
	}
	a, err = conn.Do("POST", []byte(base+"/streams/"+started.Stream.ID+"/stop"), nil)
	return err == nil && a.Status == 200
}

func publicKeys(b *testing.B, private *ecdsa.PrivateKey) []byte {
	b.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	require.NoError(b, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// serial makes every token unique.
var serial atomic.Int64

func sign(b *testing.B, private *ecdsa.PrivateKey, user string) string {
	b.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "https://id.example.com", "aud": "streams", "sub": user, "jti": strconv.FormatInt(serial.Add(1), 10),
		"exp": time.Now().Add(time.Hour).Unix(),
	})
	token.Header["kid"] = "one"
	text, err := token.SignedString(private)
	require.NoError(b, err)
	return text
}
