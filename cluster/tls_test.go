package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"

	"streamcount/internal/testing/etcdtest"
)

func TestConnect_TLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	m := startTLS(t, ca)
	cert, key := ca.issue(t, "client")
	badCert, badKey := other.issue(t, "client")
	good := ClientConfig{
		Endpoints: []string{m.Endpoint()}, CAFile: ca.file, CertFile: cert, KeyFile: key,
		CallTimeout: 500 * time.Millisecond,
	}

	t.Run("ok", func(t *testing.T) {
		c, err := Connect(t.Context(), good)
		require.NoError(t, err)
		defer c.Close()
		put(t, c, "k", "v")
	})
	for name, change := range map[string]func(*ClientConfig){
		"wrong-ca":             func(c *ClientConfig) { c.CAFile = other.file },
		"ca-of-the-machine":    func(c *ClientConfig) { c.CAFile = "" },
		"wrong-client-cert":    func(c *ClientConfig) { c.CertFile, c.KeyFile = badCert, badKey },
		"no-client-cert":       func(c *ClientConfig) { c.CertFile, c.KeyFile = "", "" },
		"host-not-in-the-cert": func(c *ClientConfig) { c.Endpoints = []string{hostOnly(t, m, "localhost")} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := Connect(ctx, cfg)
			require.ErrorContains(t, err, "certificate")
			require.ErrorContains(t, err, cfg.Endpoints[0])
			require.NoError(t, ctx.Err(), "at once: %v", err)
			t.Log(err)
		})
	}
}

func TestConnect_TLSToPlainEtcd(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, port, err := net.SplitHostPort(hostPort(etcdtest.Endpoints(t)[0]))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	endpoint := "https://127.0.0.1:" + port
	_, err = Connect(ctx, ClientConfig{
		Endpoints: []string{endpoint}, CAFile: ca.file, CallTimeout: 200 * time.Millisecond,
	})
	require.ErrorContains(t, err, "TLS to "+endpoint)
}

func TestConnect_TLSWaitsForAnEtcdThatIsDown(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Connect(ctx, ClientConfig{Endpoints: []string{"https://127.0.0.1:1"}, CAFile: ca.file})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// The certificate on disk may be renewed while the client runs.
func TestDial_ReadsRenewedCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	m := startTLS(t, ca)
	cert, key := other.issue(t, "client")
	c := dial(t, ClientConfig{Endpoints: []string{m.Endpoint()}, CAFile: ca.file, CertFile: cert, KeyFile: key})
	_, err := c.Put(t.Context(), "k", "v")
	require.Error(t, err)

	newCert, newKey := ca.issue(t, "client")
	require.NoError(t, os.Rename(newCert, cert))
	require.NoError(t, os.Rename(newKey, key))
	assert.Eventually(t, func() bool {
		_, err = c.Put(t.Context(), "k", "v")
		return err == nil
	}, time.Minute, 50*time.Millisecond)
	require.NoError(t, err)
}

// The authority on disk may be changed while the client runs.
func TestDial_ReadsRenewedAuthority(t *testing.T) {
	t.Parallel()
	old, next := newAuthority(t), newAuthority(t)
	m := startTLS(t, old)
	cert, key := old.issue(t, "client")
	c := dial(t, ClientConfig{Endpoints: []string{m.Endpoint()}, CAFile: next.file, CertFile: cert, KeyFile: key})
	_, err := c.Put(t.Context(), "k", "v")
	require.Error(t, err)
	require.NoError(t, os.Rename(old.file, next.file))
	require.Eventually(t, func() bool {
		_, err = c.Put(t.Context(), "k", "v")
		return err == nil
	}, time.Minute, 50*time.Millisecond)
}

// startTLS runs an etcd that wants clients with certificates of ca.
func startTLS(t *testing.T, ca *authority) *etcdtest.Member {
	t.Helper()
	cert, key := ca.issue(t, "server")
	return etcdtest.Start(t, etcdtest.Config{TLS: &transport.TLSInfo{
		CertFile: cert, KeyFile: key, TrustedCAFile: ca.file, ClientCertAuth: true,
	}})
}

// hostOnly is the endpoint of m under another host name.
func hostOnly(t *testing.T, m *etcdtest.Member, host string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(hostPort(m.Endpoint()))
	require.NoError(t, err)
	return "https://" + net.JoinHostPort(host, port)
}

// authority is a certificate authority of one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert: cert, key: key, file: writePEM(t, "CERTIFICATE", der)}
}

// issue returns files with a certificate for 127.0.0.1 and its key.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	return writePEM(t, "CERTIFICATE", der), writePEM(t, "EC PRIVATE KEY", keyDER)
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}
