package formats

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// nginxConfig has the location of docs/playback-tokens.md.
const nginxConfig = `
daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen %s;
        location ~ ^/t/(?<sc_md5>[A-Za-z0-9_-]+)/(?<sc_expires>[0-9]+)(?<sc_dir>/vod/[A-Za-z0-9._-]+/)(?<sc_file>.+)$ {
            secure_link $sc_md5,$sc_expires;
            secure_link_md5 "$sc_expires$sc_dir a secret of 16 characters or more";
            if ($secure_link = "")  { return 403; }
            if ($secure_link = "0") { return 410; }
            alias %s$sc_dir$sc_file;
        }
    }
}
`

// nginx serves files for a token, and refuses an altered and an expired one.
func TestSecureLink_Nginx(t *testing.T) {
	program := longtest.Program(t, "nginx", "/usr/sbin/nginx")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "vod", "film-77"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "vod", "film-77", "0.ts"), []byte("segment"), 0o644))
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, "user root;"+nginxConfig, addr, dir), 0o644))
	nginx := exec.Command(program, "-p", dir, "-c", "nginx.conf")
	nginx.Stderr = os.Stderr
	require.NoError(t, nginx.Start())
	t.Cleanup(func() { _ = nginx.Process.Signal(os.Interrupt); _ = nginx.Wait() })

	f, err := Parse([]byte(`secureLink: {secret: a secret of 16 characters or more, expression: "{expires}/vod/{content}/ {secret}"}`))
	require.NoError(t, err)
	status := func(content string, expires time.Time, path string, alter func(hash string, seconds int64) (string, int64)) int {
		hash, seconds, err := f.SecureLink.Token(Values{User: "maya", Content: content, Expires: expires})
		require.NoError(t, err)
		if alter != nil {
			hash, seconds = alter(hash, seconds)
		}
		res, err := http.Get(fmt.Sprintf("http://%s/t/%s/%d%s", addr, hash, seconds, path))
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		return res.StatusCode
	}
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, time.Minute, 20*time.Millisecond)
	later := time.Now().Add(time.Hour)
	assert.Equal(t, 200, status("film-77", later, "/vod/film-77/0.ts", nil))
	assert.Equal(t, 404, status("film-77", later, "/vod/film-77/1.ts", nil), "the token is valid for all files of the film")
	assert.Equal(t, 410, status("film-77", time.Now().Add(-time.Minute), "/vod/film-77/0.ts", nil), "expired")
	assert.Equal(t, 403, status("film-78", later, "/vod/film-77/0.ts", nil), "of another film")
	assert.Equal(t, 403, status("film-77", later, "/vod/film-77/0.ts", func(hash string, seconds int64) (string, int64) {
		return hash, seconds + 60
	}), "prolonged")
	assert.Equal(t, 403, status("film-77", later, "/vod/film-77/0.ts", func(hash string, seconds int64) (string, int64) {
		return "AAAA" + hash[4:], seconds
	}), "altered")
}
