package proxies

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/freeport"
	"streamcount/internal/testing/longtest"
)

func startNGINX(tb testing.TB, s Settings, address string) {
	tb.Helper()
	path, dir := program(tb, "nginx"), tb.TempDir()
	text := Deployed(tb, "nginx.conf",
		"${SC_LISTEN}", address, "${SC_NODE_1}", s.Node, "${SC_NODE_2}", s.otherNode(), "${SC_KEY}", s.Key,
		"${SC_ORIGIN}", s.Origin, "/var/cache/nginx/streamcount", filepath.Join(dir, "cache"))
	text = s.patient(tb, text, "connect_timeout 200ms", "connect_timeout 60s", "read_timeout 2s", "read_timeout 60s",
		"upstream_timeout 2s", "upstream_timeout 60s")
	if s.FailClosed {
		text = withoutLines(tb, text, "# fail open")
	}
	write(tb, filepath.Join(dir, "streamcount.conf"), text)
	// The temporary directories are those of a user who is not root. The workers of root run
	// as root, because another user could not read the directory of the test.
	config := "worker_processes 1;\npid nginx.pid;\ndaemon off;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		config += name + "_temp_path temp/" + name + ";\n"
	}
	config += "include streamcount.conf;\n}\n"
	if os.Geteuid() == 0 {
		config = "user root;\n" + config
	}
	require.NoError(tb, os.Mkdir(filepath.Join(dir, "temp"), 0o755))
	run(tb, address, command(path, "-e", "stderr", "-p", dir, "-c", write(tb, filepath.Join(dir, "nginx.conf"), config)))
}

func startHAProxy(tb testing.TB, s Settings, address string) {
	tb.Helper()
	path, dir := program(tb, "haproxy"), tb.TempDir()
	_, port := split(tb, address)
	socket := "abns@streamcount" + port // sockets of this kind have one name for the whole machine
	config := s.patient(tb, Deployed(tb, "haproxy.cfg", "abns@streamcount", socket),
		"connect 200ms", "connect 60s", "timeout server 2s", "timeout server 60s", "check inter 1s", "check inter 60s")
	script := s.patient(tb, Deployed(tb, "streamcount.lua", "abns@streamcount", socket), "timeout = 3000", "timeout = 60000")
	if s.FailClosed {
		require.Contains(tb, config, "streamcount vod open")
		config = strings.Replace(config, "streamcount vod open", "streamcount vod closed", 1)
	}
	cmd := command(path, "-db", "-f", write(tb, filepath.Join(dir, "haproxy.cfg"), config))
	cmd.Env = append(os.Environ(),
		"SC_LISTEN="+address, "SC_NODE_1="+s.Node, "SC_NODE_2="+s.otherNode(), "SC_KEY="+s.Key, "SC_ORIGIN="+s.Origin,
		"SC_LUA="+write(tb, filepath.Join(dir, "streamcount.lua"), script))
	run(tb, address, cmd)
}

func startVarnish(tb testing.TB, s Settings, address string) {
	tb.Helper()
	path, dir := program(tb, "varnishd"), tb.TempDir()
	longtest.Program(tb, "gcc", "cc") // varnishd compiles its configuration
	host1, port1 := split(tb, s.Node)
	host2, port2 := split(tb, s.otherNode())
	origin, originPort := split(tb, s.Origin)
	text := Deployed(tb, "varnish.vcl",
		"${SC_NODE_1}", host1, "${SC_NODE_1_PORT}", port1, "${SC_NODE_2}", host2, "${SC_NODE_2_PORT}", port2,
		"${SC_KEY}", s.Key, "${SC_ORIGIN}", origin, "${SC_ORIGIN_PORT}", originPort)
	text = s.patient(tb, text, "connect_timeout = 200ms", "connect_timeout = 60s", "byte_timeout = 2s", "byte_timeout = 60s",
		"bytes_timeout = 2s", "bytes_timeout = 60s", ".interval = 1s", ".interval = 60s", ".timeout = 500ms", ".timeout = 60s")
	if s.FailClosed {
		text = withoutLines(tb, text, "# fail open")
	}
	vcl := write(tb, filepath.Join(dir, "streamcount.vcl"), text)
	// Without a jail, because its users could not read the directory of the test.
	run(tb, address, command(path, "-F", "-j", "none", "-a", address, "-f", vcl, "-n", filepath.Join(dir, "state"),
		"-s", "malloc,16m", "-p", "thread_pool_min=10"))
}

// secretHost is the name that the second rule of remap.config has in tests.
const secretHost = "streamcount-7f3a9c.internal"

func startTrafficServer(tb testing.TB, s Settings, address string) {
	tb.Helper()
	path, dir := program(tb, "traffic_server"), tb.TempDir()
	_, err := os.Stat("/usr/lib/trafficserver/modules/authproxy.so")
	if err != nil {
		longtest.Missing(tb, "the plugin authproxy of Traffic Server: "+err.Error())
	}
	host, port := split(tb, address)

	etc, cache := filepath.Join(dir, "etc"), filepath.Join(dir, "cache")
	require.NoError(tb, os.CopyFS(etc, os.DirFS("/etc/trafficserver")))
	records, err := os.ReadFile(filepath.Join(etc, "records.config"))
	require.NoError(tb, err)
	write(tb, filepath.Join(etc, "records.config"), string(records)+Deployed(tb, "ats/records.config")+
		"CONFIG proxy.config.http.server_ports STRING "+port+"\n"+
		"CONFIG proxy.config.admin.user_id STRING #-1\n"+ // the user who runs the test
		"CONFIG proxy.config.diags.output.error STRING E\n")
	write(tb, filepath.Join(etc, "storage.config"), cache+" 16M\n")
	remap := Deployed(tb, "ats/remap.config",
		"${SC_HOST}/", host+":"+port+"/", "${SC_SECRET_HOST}/", secretHost+":"+port+"/", "${SC_SECRET_HOST}", secretHost,
		"${SC_PORT}", port, "${SC_NODE}", s.Node, "${SC_ORIGIN}", s.Origin)
	write(tb, filepath.Join(etc, "remap.config"),
		s.patient(tb, remap, "timeout_out=2", "timeout_out=60", "attempts_timeout=1", "attempts_timeout=60"))
	rules := Deployed(tb, "ats/streamcount.conf", "${SC_KEY}", s.Key)
	if s.FailClosed {
		rules, _, _ = strings.Cut(rules, "cond %{SEND_RESPONSE_HDR_HOOK}")
	}
	write(tb, filepath.Join(etc, "streamcount.conf"), rules)

	runroot := ""
	for name, value := range map[string]string{
		"prefix": "/usr", "exec_prefix": "/usr", "bindir": "/usr/bin", "sbindir": "/usr/sbin", "includedir": "/usr/include",
		"libdir": "/usr/lib/trafficserver", "libexecdir": "/usr/lib/trafficserver/modules", "mandir": "/usr/share/man",
		"infodir": "/usr/share/info", "sysconfdir": etc, "datadir": cache, "cachedir": cache, "localstatedir": dir,
		"runtimedir": filepath.Join(dir, "run"), "logdir": filepath.Join(dir, "log"),
	} {
		runroot += name + ": " + value + "\n"
	}
	for _, name := range []string{"cache", "run", "log"} {
		require.NoError(tb, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	run(tb, address, command(path, "--run-root="+write(tb, filepath.Join(dir, "runroot.yaml"), runroot)))
}

func startCaddy(tb testing.TB, s Settings, address string) {
	tb.Helper()
	path, dir := program(tb, "caddy"), tb.TempDir()
	text := s.patient(tb, Deployed(tb, "Caddyfile"), "dial_timeout 200ms", "dial_timeout 60s",
		"response_header_timeout 2s", "response_header_timeout 60s",
		"health_interval 1s", "health_interval 60s", "health_timeout 500ms", "health_timeout 60s")
	if s.FailClosed {
		require.Contains(tb, text, "status 2xx 5xx")
		text = strings.Replace(text, "status 2xx 5xx", "status 2xx", 1)
		before, block, found := strings.Cut(text, "\thandle_errors")
		require.True(tb, found)
		_, after, found := strings.Cut(block, "\n\t}\n")
		require.True(tb, found)
		text = before + after
	}
	// The interface of the administrator has a fixed port by default.
	cmd := command(path, "run", "--adapter", "caddyfile", "--config", write(tb, filepath.Join(dir, "Caddyfile"), "{\n\tadmin off\n}\n"+text))
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir,
		"SC_LISTEN=http://"+address, "SC_NODE_1="+s.Node, "SC_NODE_2="+s.otherNode(), "SC_KEY="+s.Key, "SC_ORIGIN="+s.Origin)
	run(tb, address, cmd)
}

func startTraefik(tb testing.TB, s Settings, address string) {
	tb.Helper()
	if os.Getenv("STREAMCOUNT_WITHOUT_TRAEFIK") != "" {
		tb.Skip("missing: Traefik, which could not be built")
	}
	path, dir := program(tb, "traefik"), tb.TempDir()
	port, err := freeport.Find()
	require.NoError(tb, err)
	const checks = "127.0.0.1:3003"
	ownChecks := fmt.Sprintf("127.0.0.1:%d", port)
	dynamic := filepath.Join(dir, "dynamic")
	static := Deployed(tb, "traefik.yaml", "${SC_LISTEN}", address, checks, ownChecks,
		"filename: /etc/traefik/traefik-dynamic.yaml", "directory: "+dynamic)
	text := s.patient(tb, Deployed(tb, "traefik-dynamic.yaml", checks, ownChecks,
		"${SC_NODE_1}", s.Node, "${SC_NODE_2}", s.otherNode(), "${SC_KEY}", s.Key, "${SC_ORIGIN}", s.Origin),
		"dialTimeout: 200ms", "dialTimeout: 60s", "responseHeaderTimeout: 2s", "responseHeaderTimeout: 60s",
		"interval: 1s, timeout: 500ms", "interval: 60s, timeout: 60s")
	if s.FailClosed {
		before, after, found := strings.Cut(text, "node-2-or-allow # fail open")
		require.True(tb, found)
		text = before + "node-2 #" + after
	}
	write(tb, filepath.Join(dynamic, "streamcount.yaml"), text)
	// Traefik listens before it has read these files. When it answers this path, it has read both.
	write(tb, filepath.Join(dynamic, "ready.yaml"),
		"http: {routers: {ready: {entryPoints: [media], rule: Path(`/ready`), priority: 1000, service: ping@internal}}}")
	run(tb, address, command(path, "--configFile="+write(tb, filepath.Join(dir, "traefik.yaml"), static)))
	require.Eventually(tb, func() bool { return status(tb, "http://"+address+"/ready") == http.StatusOK }, time.Minute, 10*time.Millisecond)
}

// status returns the status of the response to a request, or 0 without a response.
func status(tb testing.TB, url string) int {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
