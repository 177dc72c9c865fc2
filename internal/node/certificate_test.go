package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"streamcount/internal/config"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// selfSigned returns a new certificate and its key, in PEM.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", keyDER)
}

// A changed certificate is used by new connections. One that does not match its key is not.
func TestCertificate_Reload(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	write := func(cert, key string) {
		require.NoError(t, os.WriteFile(certPath, []byte(cert), 0o600))
		require.NoError(t, os.WriteFile(keyPath, []byte(key), 0o600))
	}
	cert1, key1 := selfSigned(t)
	cert2, key2 := selfSigned(t)
	write(cert1, key1)
	c, err := newCertificate(certPath, keyPath, "")
	require.NoError(t, err)
	serial := func() string {
		current, err := c.config().GetConfigForClient(nil)
		require.NoError(t, err)
		leaf, err := x509.ParseCertificate(current.Certificates[0].Certificate[0])
		require.NoError(t, err)
		return leaf.SerialNumber.String()
	}
	first := serial()
	require.ErrorContains(t, c.load([][]byte{[]byte(cert2), []byte(key1)}), "do not match")
	assert.Equal(t, first, serial())
	require.NoError(t, c.load([][]byte{[]byte(cert2), []byte(key2)}))
	assert.NotEqual(t, first, serial())
	require.ErrorContains(t, c.load([][]byte{[]byte(cert1), []byte(key1), []byte("x")}), "no PEM certificate")

	write(cert1, key2)
	_, err = newCertificate(certPath, keyPath, "")
	require.ErrorContains(t, err, "do not match")
	assert.ErrorAs(t, err, new(config.Error))
	_, err = newCertificate(certPath, filepath.Join(dir, "none"), "")
	require.ErrorContains(t, err, "none")
}
