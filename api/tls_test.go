package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// selfSigned returns a certificate for 127.0.0.1 and a pool that trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "streamcount"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

func runTLS(t *testing.T, change func(*tls.Config)) (addr string, pool *x509.CertPool) {
	t.Helper()
	cert, pool := selfSigned(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if change != nil {
		change(config)
	}
	addr, _ = run(t, newServer(t, Config{Ingress: IngressConfig{TLS: config, HSTS: true}}, &fake{count: 1}))
	return addr, pool
}

// tlsClient returns a client that uses TLS and one version of HTTP.
func tlsClient(t *testing.T, pool *x509.CertPool, h2 bool, certs ...tls.Certificate) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}, ForceAttemptHTTP2: h2}
	if !h2 {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetHTTP1(true)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestTLS_HTTPVersions(t *testing.T) {
	addr, pool := runTLS(t, nil)
	for h2, proto := range map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"} {
		c := tlsClient(t, pool, h2)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				resp, err := c.Post("https://"+addr+userBase+"/start", "", nil)
				if !assert.NoError(t, err) {
					return
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				assert.NoError(t, err)
				assert.Equal(t, 200, resp.StatusCode, string(body))
				assert.Equal(t, proto, resp.Proto)
				assert.NotContains(t, resp.Header, "Connection")
				assert.Contains(t, resp.Header, "Strict-Transport-Security")
			})
		}
		wg.Wait()
	}
	_, err := http.Get("http://" + addr + "/healthz")
	require.Error(t, err, "plain HTTP is not spoken on that port")
}

// Bad framing is rejected over TLS too.
func TestTLS_Framing(t *testing.T) {
	addr, pool := runTLS(t, nil)
	for _, b := range badFraming() {
		t.Run(b.name, func(t *testing.T) {
			dialer := tls.Dialer{Config: &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}}
			c, err := dialer.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
			go func() { _, _ = io.WriteString(c, b.raw) }()
			head := make([]byte, len("HTTP/1.1 400"))
			_, err = io.ReadFull(c, head)
			require.NoError(t, err)
			assert.Contains(t, []string{"HTTP/1.1 400", "HTTP/1.1 408", "HTTP/1.1 413", "HTTP/1.1 501", "HTTP/1.0 400"}, string(head))
		})
	}
}

func TestTLS_ClientCertificates(t *testing.T) {
	mine, myPool := selfSigned(t)
	stranger, _ := selfSigned(t)
	addr, pool := runTLS(t, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, myPool
	})
	ask := func(h2 bool, certs ...tls.Certificate) error {
		resp, err := tlsClient(t, pool, h2, certs...).Get("https://" + addr + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for _, h2 := range []bool{false, true} {
		require.NoError(t, ask(h2, mine))
		require.Error(t, ask(h2))
		require.Error(t, ask(h2, stranger))
	}
}

// A client that does not complete its handshake delays no other client, and is disconnected.
// The server can be stopped during a handshake.
func TestTLS_SlowHandshakes(t *testing.T) {
	longtest.Require(t)
	cert, pool := selfSigned(t)
	s := newServer(t, Config{Ingress: IngressConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}}, &fake{})
	addr, stop := run(t, s)
	var idle []net.Conn
	for range 50 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte{0x16, 0x03, 0x01})
		require.NoError(t, err)
		idle = append(idle, c)
	}
	resp, err := tlsClient(t, pool, true).Get("https://" + addr + "/healthz")
	require.NoError(t, err)
	resp.Body.Close()
	for _, c := range idle {
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		_, err := io.ReadAll(c)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	}
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, stop())
}

func tlsWith(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}
