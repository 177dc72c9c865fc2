package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// load returns the configuration for a command line, an environment and a config file.
func load(t *testing.T, args, environ []string, file string) (Config, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "streamcount.yaml")
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		args = append(args, "--config", path)
	}
	var cfg Config
	fs := cfg.Flags()
	require.NoError(t, fs.Parse(args))
	err := cfg.Load(fs, environ)
	return cfg, err
}

func TestConfig_Defaults(t *testing.T) {
	cfg, err := load(t, nil, []string{"HOME=/", "STREAMCOUNT_LIMIT="}, "")
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1:3000", cfg.Listen)
	assert.Equal(t, "./streamcount-data", cfg.DataDir)
	assert.Empty(t, cfg.EtcdEndpoints)
	assert.Equal(t, "/streamcount", cfg.EtcdPrefix)
	assert.Equal(t, 3, cfg.Limit, "an empty variable is ignored")
	assert.Equal(t, 90*time.Second, cfg.TTL)
	assert.Equal(t, "local", cfg.Region)
	assert.False(t, cfg.Demo)
	assert.Equal(t, "default", cfg.Source("limit"))
}

func TestConfig_Precedence(t *testing.T) {
	flag, env, file := []string{"--limit", "10"}, []string{"STREAMCOUNT_LIMIT=20"}, "limit: 30\n"
	tests := map[string]struct {
		args, environ []string
		file          string
		limit         int
		source        string
	}{
		"default":       {nil, nil, "", 3, "default"},
		"file":          {nil, nil, file, 30, "limit in "},
		"env":           {nil, env, "", 20, "STREAMCOUNT_LIMIT"},
		"env_file":      {nil, env, file, 20, "STREAMCOUNT_LIMIT"},
		"flag":          {flag, nil, "", 10, "the command line"},
		"flag_file":     {flag, nil, file, 10, "the command line"},
		"flag_env":      {flag, env, "", 10, "the command line"},
		"flag_env_file": {flag, env, file, 10, "the command line"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, tc.args, tc.environ, tc.file)
			require.NoError(t, err)
			assert.Equal(t, tc.limit, cfg.Limit)
			assert.Contains(t, cfg.Source("limit"), tc.source)
		})
	}
}

func TestConfig_EverySource(t *testing.T) {
	values := map[string]string{
		"listen": ":0", "data-dir": "d", "etcd-prefix": "/x", "limit": "7", "ttl": "30s", "region": "r",
		"node": "n1", "log-level": "warn", "log-format": "json", "audit-file": "a.log", "max-streams-per-user": "9", "demo": "true", "memory": "2GiB", "drain": "1s", "shutdown-delay": "2s",
		"etcd-endpoints": "a:1,b:2", "etcd-cert": "c", "etcd-key": "k", "etcd-ca": "a", "etcd-user": "u",
		"etcd-password-file": "p", "etcd-insecure-password": "true", "cooldown": "5s", "max-stream-age": "24h", "auth-none": "true", "auth-keys-file": "k", "auth-jwks-url": "u",
		"auth-jwks-file": "t", "auth-secret-file": "s", "auth-issuer": "i", "auth-audience": "a", "auth-plan-claim": "p",
		"auth-limit-claim": "l", "auth-label-claim": "tier=t,member=m", "auth-profile-claim": "pr", "auth-priority-claim": "pp", "auth-leeway": "1s", "auth-file": "f", "auth-user-claim": "oid",
		"auth-max-age": "24h0m0s", "auth-types": "at+jwt,jwt", "auth-stream-ids": "false", "tls-cert": "c", "tls-key": "k", "tls-client-ca": "a", "cors-origins": "https://a.example",
		"hosts": "h", "cors-headers": "x-a", "cors-allow-null": "true", "hsts": "true", "docs": "false", "trusted-proxies": "10.0.0.0/8", "network-attribute": "true", "rate-per-user": "9", "rate-per-address": "9", "rate-per-key": "9",
		"max-connections": "99", "max-connections-per-address": "9", "idle-timeout": "9s", "proxy-protocol": "true",
		"shard": "b=h:1,i:2", "on-outage": "admit", "etcd-near": "a:1", "trace-endpoint": "http://c:4318", "trace-sample": "0.5",
		"edge-listen": ":3001", "edge-file": "edge.yaml", "edge-allow": "10.0.0.0/8", "edge-stale": "2m0s", "edge-tls-cert": "c", "edge-tls-key": "k", "edge-client-ca": "a", "edge-max-connections": "99",
		"token-issuer": "https://t.example", "token-audience": "edge", "token-life": "40s", "token-algorithm": "EdDSA", "token-key-file": "k",
		"token-formats-file": "f",
	}
	var cfg Config
	assert.ElementsMatch(t, FlagNames(cfg.Flags()), keys(values), "a new key needs a value here")
	for key, value := range values {
		for name, ways := range map[string]struct {
			args, environ []string
			file          string
		}{
			"flag": {[]string{"--" + key + "=" + value}, nil, ""},
			"env":  {nil, []string{EnvName(key) + "=" + value}, ""},
			"file": {nil, nil, key + ": " + value + "\n"},
		} {
			t.Run(key+"_"+name, func(t *testing.T) {
				cfg, err := load(t, ways.args, ways.environ, ways.file)
				if err != nil { // the etcd keys need each other
					require.ErrorContains(t, err, value)
				}
				assert.Contains(t, shownValue(cfg, key), value)
				assert.NotEqual(t, FromDefault, cfg.Source(key))
			})
		}
	}
}

// Without credentials, listening on an address that other machines can reach needs a flag.
func TestConfig_LoopbackWithoutCredentials(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "127.9.9.9:1", "[::1]:3000", "localhost:3000"} {
		_, err := load(t, []string{"--listen=" + address}, nil, "")
		require.NoError(t, err, address)
	}
	for _, address := range []string{":3000", "0.0.0.0:3000", "[::]:3000", "10.0.0.7:3000", "api.example:3000"} {
		_, err := load(t, []string{"--listen=" + address}, nil, "")
		require.ErrorContains(t, err, "auth-none", address)
		_, err = load(t, []string{"--listen=" + address, "--auth-none"}, nil, "")
		require.NoError(t, err, address)
	}
}

func keys(m map[string]string) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}

func shownValue(cfg Config, key string) string {
	var empty Config
	fs := empty.Flags()
	empty = cfg // the flags of fs point into empty
	var value string
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == key {
			value = f.Value.String()
		}
	})
	return value
}

func TestConfig_ListsInFiles(t *testing.T) {
	for name, file := range map[string]string{
		"text": "etcd-endpoints: a:1,b:2\n",
		"list": "etcd-endpoints:\n  - a:1\n  - b:2\n",
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, nil, nil, file)
			require.NoError(t, err)
			assert.Equal(t, []string{"a:1", "b:2"}, cfg.EtcdEndpoints)
		})
	}
}

// A rejection is an invalid configuration and the text of its error, which names the key,
// the value, its source and what is accepted.
type rejection struct {
	args, environ []string
	file          string
	want          string
}

func (r rejection) check(t *testing.T) {
	t.Helper()
	_, err := load(t, r.args, r.environ, r.file)
	require.ErrorContains(t, err, r.want)
	assert.ErrorAs(t, err, new(Error))
	assert.NotContains(t, err.Error(), "\n")
}

func words(w ...string) []string { return w }

const wantTTL = " (from the command line): want whole seconds, from 5s to 24h"

func TestConfig_RejectsValues(t *testing.T) {
	args, env := words, words
	for name, r := range map[string]rejection{
		"limit_61": {environ: env("STREAMCOUNT_LIMIT=61"),
			want: `limit "61" (from STREAMCOUNT_LIMIT): want 0 to 60`},
		"limit_negative": {args: args("--limit=-1"),
			want: `limit "-1" (from the command line): want 0 to 60`},
		"limit_word": {environ: env("STREAMCOUNT_LIMIT=many"),
			want: `limit "many" (from STREAMCOUNT_LIMIT): want a whole number, such as 3`},
		"ttl_0":      {args: args("--ttl=0s"), want: `ttl "0s"` + wantTTL},
		"ttl_1s":     {args: args("--ttl=1s"), want: `ttl "1s"` + wantTTL},
		"ttl_25h":    {args: args("--ttl=25h"), want: `want whole seconds, from 5s to 24h`},
		"ttl_broken": {args: args("--ttl=5500ms"), want: `ttl "5.5s"` + wantTTL},
		"ttl_plain": {environ: env("STREAMCOUNT_TTL=90"),
			want: `ttl "90" (from STREAMCOUNT_TTL): want a duration with a unit, such as 90s or 5m`},
		"demo_word": {environ: env("STREAMCOUNT_DEMO=perhaps"), want: `want true or false`},
		"demo_limit_0": {args: args("--demo", "--limit=0"),
			want: `demo "true" (from the command line): requires a limit of 1 or more`},
		"region": {args: args("--region=eu west"),
			want: `region "eu west" (from the command line): want 1 to 64 letters`},
		"node": {args: args("--node=a/b"), want: `node "a/b" (from the command line): want 1 to 128 letters`},
		"prefix": {args: args("--etcd-prefix=x/"),
			want: `etcd-prefix "x/" (from the command line): want a path such as`},
		"listen": {args: args("--listen=3000"),
			want: `listen "3000" (from the command line): want HOST:PORT, such as 127.0.0.1:3000 or :3000`},
		"listen_port": {args: args("--listen=:70000"), want: `listen ":70000"`},
		"listen_everywhere": {args: args("--listen=:3000"),
			want: `listen ":3000" (from the command line): other machines can connect to this address`},
		"listen_elsewhere": {environ: env("STREAMCOUNT_LISTEN=10.0.0.7:3000"), want: `set auth-keys-file or a source of`},
		"listen_by_name":   {args: args("--listen=api.example:3000"), want: `listen on 127.0.0.1, set auth-keys-file`},
		"memory":           {args: args("--memory=2Gigs"), want: `memory "2Gigs" (from the command line): want a size such as 2GiB`},
		"memory_small":     {args: args("--memory=2"), want: `memory "2" (from the command line): want a size such as 2GiB, 64MiB or more`},
		"memory_large":     {args: args("--memory=8EiB"), want: `memory "8EiB" (from the command line): want a size`},
		"drain":            {args: args("--drain=-1s"), want: `drain "-1s" (from the command line): want 0s or more`},
		"log_level": {args: args("--log-level=loud"),
			want: `log-level "loud" (from the command line): want debug, info,`},
		"log_format": {args: args("--log-format=xml"),
			want: `log-format "xml" (from the command line): want text or json`},
	} {
		t.Run(name, r.check)
	}
}

func TestConfig_RejectsCombinations(t *testing.T) {
	args, env := words, words
	for name, r := range map[string]rejection{
		"two_etcds": {args: args("--etcd-endpoints=a:1"), environ: env("STREAMCOUNT_DATA_DIR=/d"),
			want: `data-dir "/d" (from STREAMCOUNT_DATA_DIR): applies to the embedded etcd and cannot be combined with etcd-endpoints "a:1" ` +
				`(from the command line): remove one of them`},
		"no_data_dir": {args: args("--data-dir="), want: `data-dir "" (from the command line): want the data directory`},
		"cert_alone": {args: args("--etcd-endpoints=a:1", "--etcd-cert=c"),
			want: `etcd-cert "c" (from the command line): requires etcd-key`},
		"key_alone": {args: args("--etcd-endpoints=a:1", "--etcd-key=k"),
			want: `requires etcd-cert`},
		"user_alone": {args: args("--etcd-endpoints=a:1", "--etcd-user=u"),
			want: `requires etcd-password-file`},
		"password_alone": {args: args("--etcd-endpoints=a:1", "--etcd-password-file=p"),
			want: `requires etcd-user`},
		"ca_embedded": {args: args("--etcd-ca=ca.pem"),
			want: `etcd-ca "ca.pem" (from the command line): does not apply to the embedded etcd: remove it, or`},
		"origin":                 {args: args("--cors-origins=*"), want: `cors-origins "*" (from the command line): want an origin`},
		"host":                   {args: args("--hosts=a:80"), want: `hosts "a:80" (from the command line): want names without a port`},
		"null_origin":            {args: args("--cors-origins=https://a.example, null"), want: `cors-origins "null" (from the command line): the origin null`},
		"shared_suffix":          {args: args("--cors-origins=https://*.github.io"), want: `can have names below github.io`},
		"cors_header":            {args: args("--cors-headers=x:y"), want: `cors-headers "x:y" (from the command line): want names of headers`},
		"proxy_network_any4":     {args: args("--trusted-proxies=10.0.0.0/8,0.0.0.0/0"), want: `trusted-proxies "0.0.0.0/0" (from the command line): is too large`},
		"proxy_network_any6":     {args: args("--trusted-proxies=::/0"), want: `is too large`},
		"proxy_network_half":     {args: args("--trusted-proxies=128.0.0.0/1"), want: `is too large`},
		"mapped_proxy":           {args: args("--trusted-proxies=::ffff:0.0.0.0/96"), want: `is too large`},
		"hsts_alone":             {args: args("--hsts"), want: `hsts "true" (from the command line): requires tls-cert`},
		"proxy":                  {args: args("--trusted-proxies=lan"), want: `trusted-proxies "lan" (from the command line): want networks`},
		"rate":                   {args: args("--rate-per-user=-1"), want: `rate-per-user "-1" (from the command line): want 0 to 1000000`},
		"tls_cert_alone":         {args: args("--tls-cert=c"), want: `tls-cert "c" (from the command line): requires tls-key`},
		"tls_key_alone":          {args: args("--tls-key=k"), want: `tls-key "k" (from the command line): requires tls-cert`},
		"tls_ca_alone":           {args: args("--tls-client-ca=a"), want: `requires tls-cert`},
		"edge_file_alone":        {args: args("--edge-file=e"), want: `edge-file "e" (from the command line): requires edge-listen`},
		"edge_listen_alone":      {args: args("--edge-listen=:1"), want: `edge-listen ":1" (from the command line): requires edge-file`},
		"edge_address":           {args: args("--edge-listen=1", "--edge-file=e"), want: `edge-listen "1" (from the command line): want HOST:PORT`},
		"edge_port":              {args: args("--edge-listen=127.0.0.1:99999", "--edge-file=e"), want: `edge-listen "127.0.0.1:99999" (from the command line): want HOST:PORT`},
		"edge_connections":       {args: args("--edge-max-connections=9"), want: `edge-max-connections "9" (from the command line): want 10 to 1000000`},
		"edge_network":           {args: args("--edge-listen=:1", "--edge-file=e", "--edge-allow=0.0.0.0/0"), want: `edge-allow "0.0.0.0/0" (from the command line): is too large`},
		"edge_name":              {args: args("--edge-listen=:1", "--edge-file=e", "--edge-allow=lan"), want: `edge-allow "lan" (from the command line): want networks`},
		"edge_stale":             {args: args("--edge-stale=1s"), want: `edge-stale "1s" (from the command line): want 5s to 24h`},
		"edge_ca_alone":          {args: args("--edge-client-ca=a"), want: `edge-client-ca "a" (from the command line): requires edge-tls-cert`},
		"auth_none_and_keys":     {args: args("--auth-none", "--auth-keys-file=k"), want: `auth-none "true" (from the command line): cannot be combined`},
		"token_issuer":           {args: args("--auth-jwks-file=k", "--auth-audience=a"), want: `auth-issuer "" (from default): want the iss`},
		"token_audience":         {args: args("--auth-jwks-file=k", "--auth-issuer=i"), want: `auth-audience "" (from default): want the aud`},
		"network_without_tokens": {args: args("--network-attribute", "--auth-keys-file=k"), want: `network-attribute "true" (from the command line): requires auth-file`},
		"label_without_keys":     {args: args("--auth-label-claim=tier=t"), want: `auth-label-claim "tier=t" (from the command line): requires auth-jwks-url`},
		"label_without_claim": {args: args("--auth-jwks-url=https://h/k", "--auth-issuer=i", "--auth-audience=a", "--auth-label-claim=tier"),
			want: `auth-label-claim "tier" (from the command line): label claim "tier": want KEY=CLAIM`},
		"claim_without_keys": {args: args("--auth-plan-claim=p"), want: `auth-plan-claim "p" (from the command line): requires auth-jwks-url`},
		"stream_ids_alone":   {args: args("--auth-stream-ids=false"), want: `auth-stream-ids "false" (from the command line): requires auth-keys-file`},
		"demo_and_keys":      {args: args("--demo", "--auth-keys-file=k"), want: `cannot be combined with auth flags`},
		"user_claim_alone":   {args: args("--auth-user-claim=oid"), want: `auth-user-claim "oid" (from the command line): requires auth-jwks-url`},
		"max_age":            {args: args("--auth-jwks-file=k", "--auth-issuer=i", "--auth-audience=a", "--auth-max-age=-1s"), want: `auth-max-age "-1s"`},
		"file_and_url":       {args: args("--auth-file=f", "--auth-jwks-url=u"), want: `auth-jwks-url "u" (from the command line): configures a single issuer`},
		"file_and_leeway":    {args: args("--auth-file=f", "--auth-leeway=1s"), want: `auth-leeway "1s" (from the command line): configures a single issuer`},
		"file_and_none":      {args: args("--auth-file=f", "--auth-none"), want: `auth-none "true" (from the command line): cannot be combined`},
		"leeway":             {args: args("--auth-leeway=1h"), want: `auth-leeway "1h0m0s" (from the command line): want 0s to 5m`},
		"endpoint": {args: args("--etcd-endpoints=a"),
			want: `etcd-endpoints "a" (from the command line): want addresses`},
	} {
		t.Run(name, r.check)
	}
}

func TestConfig_RejectsUnknownKeys(t *testing.T) {
	env := words
	for name, r := range map[string]rejection{
		"unknown_env": {environ: env("STREAMCOUNT_LIMITS=4"),
			want: `unknown environment variable STREAMCOUNT_LIMITS (did you mean STREAMCOUNT_LIMIT?): unset it`},
		"unknown_env_far": {environ: env("STREAMCOUNT_COLOUR_OF_SKY=4"),
			want: `unknown environment variable STREAMCOUNT_COLOUR_OF_SKY: unset it`},
		"unknown_key":      {file: "limt: 4\n", want: `unknown key "limt" (did you mean limit?)`},
		"nested_config":    {file: "config: x\n", want: `unknown key "config"`},
		"file_quoted_int":  {file: "limit: \"4\"\n", want: `want a whole number, such as 3`},
		"file_float":       {file: "limit: 4.5\n", want: `limit "4.5" (from limit in `},
		"file_bare_ttl":    {file: "ttl: 90\n", want: `want a duration with a unit, such as 90s or 5m`},
		"file_number_text": {file: "region: 7\n", want: `want a string`},
		"file_bool_text":   {file: "region: true\n", want: `want a string`},
		"file_quoted_bool": {file: "demo: \"true\"\n", want: `want true or false`},
		"file_norway": {file: "region: no\n",
			want: `want a string, in quotes if YAML would read it as a number or boolean`},
		"file_null":         {file: "limit:\n", want: `want a whole number, such as 3`},
		"file_list":         {file: "limit: [1]\n", want: `want a whole number, such as 3`},
		"file_number_list":  {file: "etcd-endpoints: [1]\n", want: `want a list, such as a,b,c`},
		"file_map":          {file: "limit: {a: 1}\n", want: `want a whole number, such as 3`},
		"file_twice":        {file: "limit: 1\nlimit: 2\n", want: `key "limit" already set`},
		"file_no_map":       {file: "- a\n", want: `want one "key: value" per line`},
		"file_documents":    {file: "limit: 5\n---\nlimit: 7\n", want: "several YAML documents"},
		"file_out_of_range": {file: "limit: 61\n", want: `limit "61" (from limit in `},
		"no_file": {environ: env("STREAMCOUNT_CONFIG=/does/not/exist.yaml"),
			want: `config file: open /does/not/exist.yaml`},
	} {
		t.Run(name, r.check)
	}
}

func TestConfig_ErrorsHaveNoPassword(t *testing.T) {
	_, err := load(t, []string{"--etcd-endpoints=http://root:hunter2@etcd:2379"}, nil, "")
	require.ErrorContains(t, err, "etcd-endpoints")
	assert.NotContains(t, err.Error(), "hunter2")
	_, err = load(t, nil, []string{"STREAMCOUNT_PASSWORD=hunter2"}, "")
	require.ErrorContains(t, err, "STREAMCOUNT_PASSWORD")
	assert.NotContains(t, err.Error(), "hunter2")
}

func TestConfig_IgnoresServiceLinks(t *testing.T) {
	_, err := load(t, nil, []string{
		"STREAMCOUNT_SERVICE_HOST=10.0.0.1", "STREAMCOUNT_SERVICE_PORT=80", "STREAMCOUNT_PORT=tcp://10.0.0.1:80",
		"STREAMCOUNT_PORT_80_TCP_ADDR=10.0.0.1", "STREAMCOUNT_SERVER=http://x:1", "STREAMCOUNTER=5",
	}, "")
	require.NoError(t, err)
}

func TestNodeName(t *testing.T) {
	var cfg Config
	a, b := cfg.NewNodeName(), cfg.NewNodeName()
	assert.NotEqual(t, a, b)
	assert.Regexp(t, namePattern, a)
	cfg.Node = "n1"
	assert.Equal(t, "n1", cfg.NewNodeName())
}

func TestDidYouMean(t *testing.T) {
	known := []string{"listen", "limit", "ttl", "etcd-near"}
	for word, want := range map[string]string{
		"limt": "limit", "lmiit": "limit", "LIMIT": "limit", "etcd": "etcd-near", "unlimited": "",
	} {
		got := didYouMean(word, known)
		if want != "" {
			want = " (did you mean " + want + "?)"
		}
		assert.Equal(t, want, got, word)
	}
}

// Each flag of serve is in the documentation of the configuration.
func TestConfig_EveryFlagIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	require.NoError(t, err)
	for _, name := range FlagNames(new(Config).Flags()) {
		assert.Contains(t, string(page), "`--"+name+"`", "docs/configuration.md")
	}
}
