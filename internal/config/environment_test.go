package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// linksOf returns the variables that Kubernetes sets for a Service.
func linksOf(service, address, protocol string, port int, portName string) []string {
	name := strings.ToUpper(strings.ReplaceAll(service, "-", "_"))
	host := address
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	url := fmt.Sprintf("%s://%s:%d", protocol, host, port)
	one := fmt.Sprintf("%s_PORT_%d_%s", name, port, strings.ToUpper(protocol))
	links := []string{
		name + "_SERVICE_HOST=" + address, fmt.Sprintf("%s_SERVICE_PORT=%d", name, port), name + "_PORT=" + url,
		one + "=" + url, one + "_PROTO=" + protocol, fmt.Sprintf("%s_PORT=%d", one, port), one + "_ADDR=" + address,
	}
	if portName != "" {
		portName = strings.ToUpper(strings.ReplaceAll(portName, "-", "_"))
		links = append(links, fmt.Sprintf("%s_SERVICE_PORT_%s=%d", name, portName, port))
	}
	return links
}

// The variables of a Service with any name do not prevent a node from starting.
func TestEnvironment_ServiceLinks(t *testing.T) {
	flags := (&Config{}).Flags()
	names := []string{"streamcount", "streamcount-eu", "streamcount-etcd", "streamcount-service", "streamcount-port",
		"streamcount-port-80-tcp", "streamcount-service-host", "streamcount-0", "streamcount-server", "streamcount-config"}
	for _, flag := range FlagNames(flags) {
		names = append(names, "streamcount-"+flag)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.SampledFrom(names), rapid.StringMatching(`streamcount(-[a-z0-9]{1,9}){1,4}`))
		var environ []string
		for range rapid.IntRange(1, 3).Draw(t, "services") {
			environ = append(environ, linksOf(name.Draw(t, "service"),
				rapid.SampledFrom([]string{"10.0.0.7", "fd00::7", "::1"}).Draw(t, "address"),
				rapid.SampledFrom([]string{"tcp", "udp", "sctp"}).Draw(t, "protocol"),
				rapid.IntRange(1, 65535).Draw(t, "port"),
				rapid.SampledFrom([]string{"", "http", "http-metrics", "port-80-tcp", "80-tcp-addr"}).Draw(t, "portName"))...)
		}
		if err := checkEnvironment(environ, FlagNames(flags)); err != nil {
			t.Fatal(err)
		}
		misspelt := rapid.SampledFrom([]string{"STREAMCOUNT_LIMTI=5", "STREAMCOUNT_ETCD_ENDPOINT=http://e:2379",
			"STREAMCOUNT_TTL_=5s", "STREAMCOUNT_SERVICES_HOST=10.0.0.1", "STREAMCOUNT_LISTENPORT=3000"}).Draw(t, "misspelt")
		if checkEnvironment(append(environ, misspelt), FlagNames(flags)) == nil {
			t.Fatalf("%s is accepted beside %v", misspelt, environ)
		}
	})
}

func TestEnvironment_NotServiceLinks(t *testing.T) {
	for _, one := range []string{
		"STREAMCOUNT_PORT=3000", "STREAMCOUNT_PORT=http://10.0.0.1:80", "STREAMCOUNT_SERVICE_HOST=streams.example",
		"STREAMCOUNT_SERVICE_PORT=80", "STREAMCOUNT_NAME=n1", "STREAMCOUNT_EU_PORT=tcp://10.0.0.7", "STREAMCOUNT_EU_SERVICE_HOST=",
		"STREAMCOUNT_EU_PORT=tcp://10.0.0.7:80/x", "STREAMCOUNT_EU_PORT_80_TCP_ADDR=10.0.0.7", "STREAMCOUNT_SERVICE_LIMIT=4",
		"STREAMCOUNT_PORT_LIMIT=4", "STREAMCOUNT__SERVICE_HOST=x",
	} {
		_, err := load(t, nil, []string{one}, "")
		require.ErrorContains(t, err, "unknown environment variable", one)
	}
	_, err := load(t, nil, append(linksOf("streamcount-eu", "10.0.0.7", "tcp", 80, ""), "STREAMCOUNT_EU_SERVICE_PORT_HTTP=many"), "")
	require.ErrorContains(t, err, "unknown environment variable STREAMCOUNT_EU_SERVICE_PORT_HTTP")
	// Links of Docker, and the smallest group of variables.
	_, err = load(t, nil, []string{"STREAMCOUNT_PORT=tcp://172.17.0.2:3000", "STREAMCOUNT_NAME=/web/streamcount",
		"STREAMCOUNT_ETCD_SERVICE_HOST=10.0.0.8", "STREAMCOUNT_CACHE_PORT_6379_TCP=tcp://10.0.0.9:6379"}, "")
	require.NoError(t, err)
}

// No flag has the name of a service link: a Service would set its variable.
func TestEnvironment_FlagsAreNoServiceLinks(t *testing.T) {
	for _, name := range append(FlagNames((&Config{}).Flags()), "config", "server", "key-file", "plaintext-key") {
		env := map[string]string{EnvName(name): "x"}
		for _, service := range []string{"10.0.0.7", "80", "tcp://10.0.0.7:80", "tcp", "/a/b"} {
			env[EnvName(name)] = service
			assert.Empty(t, serviceLinks(env), name)
		}
	}
}

// Lists from every source may have spaces and empty elements.
func TestLists_AreTrimmed(t *testing.T) {
	values := map[string][2]string{
		"etcd-endpoints": {"http://a:2379", "http://b:2379"}, "cors-origins": {"https://a.example", "https://b.example"},
		"hosts": {"a.example", "b.example"}, "trusted-proxies": {"10.0.0.0/8", "fd00::/8"},
	}
	fs := (&Config{}).Flags()
	fs.VisitAll(func(f *pflag.Flag) {
		assert.NotEqual(t, "stringSlice", f.Value.Type(), "%s: use listVar", f.Name)
	})
	for key, v := range values {
		for _, form := range []string{"%s,%s", "%s, %s", " %s ,%s ", "%s,,%s", ",%s,%s,", "%s %s", "%s,\n%s\n", "%s\n%s", "\t%s\t,\t%s"} {
			text := fmt.Sprintf(form, v[0], v[1])
			for way, in := range map[string]func() (Config, error){
				"flag": func() (Config, error) { return load(t, []string{"--" + key, text}, nil, "") },
				"env":  func() (Config, error) { return load(t, nil, []string{EnvName(key) + "=" + text}, "") },
				"file": func() (Config, error) { return load(t, nil, nil, fmt.Sprintf("%s: %q\n", key, text)) },
				"list": func() (Config, error) { return load(t, nil, nil, fmt.Sprintf("%s: [%q, \"\"]\n", key, text)) },
			} {
				cfg, err := in()
				require.NoError(t, err, "%s by %s: %q", key, way, text)
				assert.Equal(t, v[0]+","+v[1], shownValue(cfg, key), "%s by %s: %q", key, way, text)
			}
		}
	}
	cfg, err := load(t, []string{"--hosts=a.example", "--hosts=b.example"}, nil, "")
	require.NoError(t, err)
	assert.Equal(t, []string{"a.example", "b.example"}, cfg.Hosts)
	cfg, err = load(t, nil, []string{"STREAMCOUNT_SHARD=default=http://a:1/, http://b:1 , west=http://c:1,"}, "")
	require.NoError(t, err)
	assert.Equal(t, "default=http://a:1,http://b:1", cfg.Shards[0].String())
	assert.Len(t, cfg.Shards, 2)
}

func TestEtcdEndpoints(t *testing.T) {
	for _, good := range []string{"a:2379", "http://a:2379", "https://etcd.default.svc.cluster.local:2379", "10.0.0.1:1",
		"[fd00::1]:2379", "http://[fd00::1]:2379", "HTTP://a:2379", "http://a:2379/"} {
		cfg, err := load(t, []string{"--etcd-endpoints", good, "--etcd-near", good}, nil, "")
		require.NoError(t, err, good)
		assert.NotContains(t, cfg.EtcdEndpoints[0], "HTTP")
		assert.False(t, strings.HasSuffix(cfg.EtcdEndpoints[0], "/"))
	}
	for bad, want := range map[string]string{
		"etcd":                     `etcd-endpoints "etcd" (from the command line): want addresses such as 10.0.0.1:2379 or https://etcd1:2379: the port is missing`,
		"http://etcd":              `"http://etcd" (from the command line): want addresses such as 10.0.0.1:2379 or https://etcd1:2379: the port is missing`,
		"etcd:":                    "the port is missing",
		"fd00::1":                  "in brackets",
		"fd00::1:2379":             "in brackets",
		"http://fd00::1:2379":      "in brackets",
		"etcd:many":                "want addresses",
		"etcd:0":                   "want addresses",
		"etcd:70000":               "want addresses",
		":2379":                    "want addresses",
		"http://:2379":             "want addresses",
		"ftp://etcd:2379":          "with http or https",
		"http://etcd:2379/v3":      "without a path",
		"http://etcd:2379?token=s": "without a path",
		"unix:///run/etcd.sock":    "Unix socket",
		"unixs://etcd":             "Unix socket",
		"srv://etcd.example":       "SRV",
		"etcd+srv://etcd.example":  "SRV",
	} {
		_, err := load(t, []string{"--etcd-endpoints", "http://good:2379," + bad}, nil, "")
		require.ErrorContains(t, err, want, bad)
		assert.NotContains(t, err.Error(), "token", bad)
		assert.NotContains(t, err.Error(), "good", "only the wrong one is named")
	}
}

func TestWithoutSecrets(t *testing.T) {
	for value, want := range map[string]string{
		"https://idp.example/jwks?token=hunter2":        "https://idp.example/jwks",
		"https://idp.example/jwks#hunter2":              "https://idp.example/jwks",
		"https://root:hunter2@idp.example/jwks":         "https://idp.example/jwks",
		"https://hunter2@idp.example:8443/a%2Fb":        "https://idp.example:8443/a%2Fb",
		"http://a:1,http://u:hunter2@b:2":               "http://a:1,http://b:2",
		`http://u:hun"ter2@b:2`:                         redactedText,
		"http://u:hun,ter2@b:2":                         redactedText,
		"http://u:1,hunter2@b:2":                        redactedText,
		"http://u:1/hunter2@b:2":                        redactedText,
		"http://u:hunter2/x@b:2":                        redactedText,
		"default=http://u:hunter2@b:2 w=http://c:1?x=y": "default=http://b:2 w=http://c:1",
		"root:hunter2@b:2":                              redactedText,
		"idp.example/jwks?hunter2":                      redactedText,
		"capacitor://localhost":                         "capacitor://localhost",
		"file://":                                       "file://",
		"10.0.0.1:2379,a:1":                             "10.0.0.1:2379,a:1",
		"":                                              "",
	} {
		assert.Equal(t, want, redactAddress(value), value)
	}
	assert.Equal(t, "a@b", RedactURLs("a@b"), "a name")
}

func TestEdgeConfig_Hosts(t *testing.T) {
	for _, tc := range []struct {
		args                 []string
		local, ip, noProxies bool
		hosts                int // -1 for those of the machine
	}{
		{nil, true, false, true, 0},
		{[]string{"--auth-none"}, true, false, false, 0},
		{[]string{"--auth-keys-file=k"}, true, false, false, 0},
		{[]string{"--hosts=a.example"}, true, false, true, 1},
		{[]string{"--listen=:3000", "--auth-none"}, false, true, false, -1},
		{[]string{"--listen=:3000", "--auth-none", "--hosts=a.example"}, false, false, false, 1},
		{[]string{"--listen=:3000", "--auth-keys-file=k"}, false, false, false, 0},
	} {
		cfg, err := load(t, tc.args, nil, "")
		require.NoError(t, err, tc.args)
		e := cfg.Ingress()
		assert.Equal(t, []bool{tc.local, tc.ip, tc.noProxies}, []bool{e.LocalHosts, e.IPHosts, e.NoProxies}, tc.args)
		if tc.hosts >= 0 {
			assert.Len(t, e.Hosts, tc.hosts, tc.args)
			continue
		}
		name, err := os.Hostname()
		require.NoError(t, err)
		assert.Contains(t, e.Hosts, strings.ToLower(name))
	}
	cfg, err := load(t, []string{"--listen=streams.example:80", "--auth-none"}, nil, "")
	require.NoError(t, err)
	assert.Contains(t, cfg.Ingress().Hosts, "streams.example")
	cfg, err = load(t, []string{"--trusted-proxies=::ffff:10.0.0.0/104, 10.9.9.9, fd00::/8, ::ffff:192.0.2.1"}, nil, "")
	require.NoError(t, err)
	assert.Equal(t, "[10.0.0.0/8 10.9.9.9/32 fd00::/8 192.0.2.1/32]", fmt.Sprint(cfg.Ingress().Proxies))
}
