package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHealth_Ready(t *testing.T) {
	t.Parallel() // it waits for the end of the shutdown delay
	p, c := serve(t, "--data-dir="+t.TempDir(), "--shutdown-delay=6s")
	out, _ := c.run(exitOK, "health")
	assert.Equal(t, "ready\n", out)
	out, _ = c.run(exitOK, "health", "--live")
	assert.Equal(t, "ok\n", out)
	out, _ = cli{t: t}.run(exitOK, "health", "--server="+c.server+"/")
	assert.Equal(t, "ready\n", out)
	// As in the container of the node, only its environment is set.
	own := cli{t: t, environ: []string{"STREAMCOUNT_LISTEN=" + strings.TrimPrefix(c.server, "http://"),
		"STREAMCOUNT_LIMIT=5"}}
	out, _ = own.run(exitOK, "health")
	assert.Equal(t, "ready\n", out)

	// During the shutdown delay a node still serves, and reports that it is not ready.
	p.cancel()
	require.Eventually(t, func() bool { return strings.Contains(p.errOut.String(), "draining") }, time.Minute,
		10*time.Millisecond)
	_, stderr := c.run(exitError, "health")
	assert.Contains(t, stderr, "/readyz returned 503: not ready: the node is draining")
	own.run(exitOK, "health", "--live")
	own.run(exitOK, "start", "maya", "--server="+c.server)
}

func TestHealth_WithoutEtcd(t *testing.T) {
	address := closedPort(t)
	p := launch(t, nil, "serve", "--listen="+address, "--etcd-endpoints="+closedPort(t))
	require.Eventually(t, func() bool { return strings.Contains(p.errOut.String(), "listening") }, time.Minute,
		10*time.Millisecond)
	c := cli{t: t, environ: []string{"STREAMCOUNT_SERVER=http://" + address}}
	c.run(exitOK, "health", "--live")
	_, stderr := c.run(exitError, "health")
	assert.Contains(t, stderr, "http://"+address+"/readyz returned 503: not ready: etcd has not been reached")
}

func TestHealth_OverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	certPEM, keyPEM, _ := newCertificatePEM(t)
	cert, key := write("cert.pem", certPEM), write("key.pem", keyPEM)
	serveTLS := func(args ...string) (address string) {
		p := launch(t, nil, append([]string{"serve", "--listen=127.0.0.1:0", "--tls-cert=" + cert, "--tls-key=" + key,
			"--data-dir=" + t.TempDir()}, args...)...)
		at := regexp.MustCompile(`serving https://(\S+) on`)
		require.Eventually(t, func() bool { return ended(p) || at.MatchString(p.out.String()) }, 30*time.Second,
			10*time.Millisecond)
		require.Regexp(t, at, p.out.String())
		return at.FindStringSubmatch(p.out.String())[1]
	}
	address := serveTLS()
	own := cli{t: t, environ: []string{"STREAMCOUNT_LISTEN=" + address, "STREAMCOUNT_TLS_CERT=" + cert,
		"STREAMCOUNT_TLS_KEY=" + key}}
	out, _ := own.run(exitOK, "health")
	assert.Equal(t, "ready\n", out)
	file := write("config.yaml", "listen: "+address+"\ntls-cert: "+cert+"\ntls-key: "+key+"\n")
	cli{t: t, environ: []string{"STREAMCOUNT_CONFIG=" + file}}.run(exitOK, "health")

	other := cli{t: t, environ: []string{"STREAMCOUNT_SERVER=https://" + address}}
	_, stderr := other.run(exitError, "health")
	assert.Contains(t, stderr, "pass the certificate of the authority with --ca")
	other.run(exitOK, "health", "--ca="+cert)
	_, stderr = other.run(exitUsage, "health", "--ca="+key)
	assert.Contains(t, stderr, "want a PEM file with certificates")

	address = serveTLS("--tls-client-ca=" + cert)
	other = cli{t: t, environ: []string{"STREAMCOUNT_SERVER=https://" + address}}
	_, stderr = other.run(exitError, "health", "--ca="+cert)
	assert.Contains(t, stderr, "requires --cert and --key")
	other.run(exitOK, "health", "--ca="+cert, "--cert="+cert, "--key="+key)
	_, stderr = other.run(exitUsage, "health", "--cert=none", "--key=none")
	assert.Contains(t, stderr, "no such file")
}

// A node that listens on all addresses may accept only host names.
func TestHealth_HostHeader(t *testing.T) {
	var asked string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Host
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(node.Close)
	port := node.URL[strings.LastIndex(node.URL, ":"):]
	c := cli{t: t, environ: []string{"STREAMCOUNT_LISTEN=" + port, "STREAMCOUNT_HOSTS=streams.example,b.example"}}
	_, stderr := c.run(exitError, "health")
	assert.Contains(t, stderr, "http://localhost"+port+"/readyz returned 418")
	assert.Equal(t, "streams.example", asked)
	c = cli{t: t, environ: []string{"STREAMCOUNT_LISTEN=0.0.0.0" + port}}
	c.run(exitError, "health")
	assert.Equal(t, "localhost"+port, asked)
}

func TestHealth_Errors(t *testing.T) {
	closed := closedPort(t)
	for name, tc := range map[string]struct {
		environ []string
		args    []string
		code    int
		want    string
	}{
		"nobody_there":   {nil, []string{"--server=http://" + closed}, exitError, "connection refused by http://" + closed},
		"no_address":     {nil, []string{"--server=node-eu"}, exitUsage, "want http://HOST:PORT"},
		"bad_listen":     {[]string{"STREAMCOUNT_LISTEN=3000"}, nil, exitUsage, "(from STREAMCOUNT_LISTEN)"},
		"no_config_file": {[]string{"STREAMCOUNT_CONFIG=/none"}, nil, exitUsage, "/none"},
		"argument":       {nil, []string{"now"}, exitUsage, "usage: streamcount health"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr := cli{t: t, environ: tc.environ}.run(tc.code, append([]string{"health"}, tc.args...)...)
			assert.Contains(t, stderr, tc.want)
		})
	}
}
