package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// load is what serve makes of args, the environment and a config file.
func load(t *testing.T, args, environ []string, file string) (Config, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "streamcount.yaml")
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		args = append(args, "--config", path)
	}
	var cfg Config
	fs := cfg.flags()
	require.NoError(t, fs.Parse(args))
	err := cfg.load(fs, environ)
	return cfg, err
}

func TestConfig_Defaults(t *testing.T) {
	cfg, err := load(t, nil, []string{"HOME=/", "STREAMCOUNT_LIMIT="}, "")
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1:3000", cfg.Listen)
	assert.Equal(t, "./streamcount-data", cfg.DataDir)
	assert.Empty(t, cfg.EtcdEndpoints)
	assert.Equal(t, "/streamcount", cfg.EtcdPrefix)
	assert.Equal(t, 3, cfg.Limit, "an empty variable is none")
	assert.Equal(t, 90*time.Second, cfg.TTL)
	assert.Equal(t, "local", cfg.Region)
	assert.False(t, cfg.Demo)
	assert.Equal(t, "default", cfg.source("limit"))
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
			assert.Contains(t, cfg.source("limit"), tc.source)
		})
	}
}

func TestConfig_EveryKeyHasEveryWayIn(t *testing.T) {
	values := map[string]string{
		"listen": ":0", "data-dir": "d", "etcd-prefix": "/x", "limit": "7", "ttl": "30s", "region": "r",
		"node": "n1", "log-level": "warn", "log-format": "json", "demo": "true", "drain": "1s", "notice": "2s",
		"etcd-endpoints": "a:1,b:2", "etcd-cert": "c", "etcd-key": "k", "etcd-ca": "a", "etcd-user": "u",
		"etcd-password-file": "p", "cooldown": "5s", "auth-none": "true", "auth-keys-file": "k", "auth-jwks-url": "u",
		"auth-jwks-file": "t", "auth-secret-file": "s", "auth-issuer": "i", "auth-audience": "a", "auth-plan-claim": "p",
		"auth-limit-claim": "l", "auth-leeway": "1s", "auth-stream-ids": "false", "tls-cert": "c", "tls-key": "k", "tls-client-ca": "a", "cors-origins": "https://a.example",
		"hosts": "h", "trusted-proxies": "10.0.0.0/8", "rate-per-user": "9", "rate-per-address": "9", "rate-per-key": "9",
		"shard": "b=h:1,i:2", "on-outage": "admit", "etcd-near": "a:1", "trace-endpoint": "http://c:4318", "trace-sample": "0.5",
	}
	var cfg Config
	assert.ElementsMatch(t, flagNames(cfg.flags()), keys(values), "a new key needs a value here")
	for key, value := range values {
		for name, ways := range map[string]struct {
			args, environ []string
			file          string
		}{
			"flag": {[]string{"--" + key + "=" + value}, nil, ""},
			"env":  {nil, []string{envName(key) + "=" + value}, ""},
			"file": {nil, nil, key + ": " + value + "\n"},
		} {
			t.Run(key+"_"+name, func(t *testing.T) {
				cfg, err := load(t, ways.args, ways.environ, ways.file)
				if err != nil { // the etcd keys need each other
					require.ErrorContains(t, err, value)
				}
				assert.Contains(t, shownValue(cfg, key), value)
				assert.NotEqual(t, fromDefault, cfg.source(key))
			})
		}
	}
}

// Nobody is asked who he is, so it takes a word to let other machines in.
func TestConfig_ListensOnLoopbackUnlessTold(t *testing.T) {
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
	fs := empty.flags()
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

// A refusal is a configuration and what is said of it: each error names the
// key, the value, where it came from, and what to do.
type refusal struct {
	args, environ []string
	file          string
	want          string
}

func (r refusal) check(t *testing.T) {
	t.Helper()
	_, err := load(t, r.args, r.environ, r.file)
	require.ErrorContains(t, err, r.want)
	assert.True(t, isUsage(err))
	assert.NotContains(t, err.Error(), "\n")
}

func words(w ...string) []string { return w }

const wantTTL = " (from the command line): want whole seconds, from 5s to 24h"

func TestConfig_RefusesValues(t *testing.T) {
	args, env := words, words
	for name, r := range map[string]refusal{
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
			want: `demo "true" (from the command line): with limit 0 nobody can watch: raise limit`},
		"region": {args: args("--region=eu west"),
			want: `region "eu west" (from the command line): want 1 to 64 letters`},
		"node": {args: args("--node=a/b"), want: `node "a/b" (from the command line): want 1 to 128 letters`},
		"prefix": {args: args("--etcd-prefix=x/"),
			want: `etcd-prefix "x/" (from the command line): want a path such as`},
		"listen": {args: args("--listen=3000"),
			want: `listen "3000" (from the command line): want HOST:PORT, such as 127.0.0.1:3000 or :3000`},
		"listen_port": {args: args("--listen=:70000"), want: `listen ":70000"`},
		"listen_everywhere": {args: args("--listen=:3000"),
			want: `listen ":3000" (from the command line): other machines can reach this address`},
		"listen_elsewhere": {environ: env("STREAMCOUNT_LISTEN=10.0.0.7:3000"), want: `set auth-keys-file or a source of`},
		"listen_by_name":   {args: args("--listen=api.example:3000"), want: `listen on 127.0.0.1, set auth-keys-file`},
		"drain":            {args: args("--drain=-1s"), want: `drain "-1s" (from the command line): want 0s or more`},
		"log_level": {args: args("--log-level=loud"),
			want: `log-level "loud" (from the command line): want debug, info,`},
		"log_format": {args: args("--log-format=xml"),
			want: `log-format "xml" (from the command line): want text or json`},
	} {
		t.Run(name, r.check)
	}
}

func TestConfig_RefusesContradictions(t *testing.T) {
	args, env := words, words
	for name, r := range map[string]refusal{
		"two_etcds": {args: args("--etcd-endpoints=a:1"), environ: env("STREAMCOUNT_DATA_DIR=/d"),
			want: `data-dir "/d" (from STREAMCOUNT_DATA_DIR): is for the embedded etcd, but etcd-endpoints "a:1" ` +
				`(from the command line) names another: remove one of the two`},
		"no_data_dir": {args: args("--data-dir="), want: `data-dir "" (from the command line): want a directory`},
		"cert_alone": {args: args("--etcd-endpoints=a:1", "--etcd-cert=c"),
			want: `etcd-cert "c" (from the command line): needs its key: set etcd-key too`},
		"key_alone": {args: args("--etcd-endpoints=a:1", "--etcd-key=k"),
			want: `needs its certificate: set etcd-cert too`},
		"user_alone": {args: args("--etcd-endpoints=a:1", "--etcd-user=u"),
			want: `needs a password: set etcd-password-file too`},
		"password_alone": {args: args("--etcd-endpoints=a:1", "--etcd-password-file=p"),
			want: `is nobody's password: set etcd-user too`},
		"ca_embedded": {args: args("--etcd-ca=ca.pem"),
			want: `etcd-ca "ca.pem" (from the command line): the embedded etcd needs none: remove it, or`},
		"origin":             {args: args("--cors-origins=*"), want: `cors-origins "*" (from the command line): want an origin`},
		"host":               {args: args("--hosts=a:80"), want: `hosts "a:80" (from the command line): want names without a port`},
		"proxy":              {args: args("--trusted-proxies=lan"), want: `trusted-proxies "lan" (from the command line): want networks`},
		"rate":               {args: args("--rate-per-user=-1"), want: `rate-per-user "-1" (from the command line): want 0 to 1000000`},
		"tls_cert_alone":     {args: args("--tls-cert=c"), want: `tls-cert "c" (from the command line): needs its key`},
		"tls_key_alone":      {args: args("--tls-key=k"), want: `tls-key "k" (from the command line): needs its certificate`},
		"tls_ca_alone":       {args: args("--tls-client-ca=a"), want: `needs a certificate of the service itself`},
		"auth_none_and_keys": {args: args("--auth-none", "--auth-keys-file=k"), want: `auth-none "true" (from the command line): contradicts`},
		"tokens_of_anybody":  {args: args("--auth-jwks-file=k", "--auth-audience=a"), want: `auth-issuer "" (from default): want the iss`},
		"tokens_for_anybody": {args: args("--auth-jwks-file=k", "--auth-issuer=i"), want: `auth-audience "" (from default): want the aud`},
		"claim_of_nothing":   {args: args("--auth-plan-claim=p"), want: `auth-plan-claim "p" (from the command line): is about viewers'`},
		"ids_and_nothing":    {args: args("--auth-stream-ids=false"), want: `auth-stream-ids "false" (from the command line): asks for`},
		"demo_and_keys":      {args: args("--demo", "--auth-keys-file=k"), want: `its viewers have no credentials`},
		"leeway":             {args: args("--auth-leeway=1h"), want: `auth-leeway "1h0m0s" (from the command line): want 0s to 5m`},
		"endpoint": {args: args("--etcd-endpoints=a"),
			want: `etcd-endpoints "a" (from the command line): want addresses`},
	} {
		t.Run(name, r.check)
	}
}

func TestConfig_RefusesWhatItDoesNotKnow(t *testing.T) {
	env := words
	for name, r := range map[string]refusal{
		"unknown_env": {environ: env("STREAMCOUNT_LIMITS=4"),
			want: `environment variable STREAMCOUNT_LIMITS means nothing (did you mean STREAMCOUNT_LIMIT?): unset it`},
		"unknown_env_far": {environ: env("STREAMCOUNT_COLOUR_OF_SKY=4"),
			want: `STREAMCOUNT_COLOUR_OF_SKY means nothing: unset it`},
		"unknown_key":      {file: "limt: 4\n", want: `there is no key "limt" (did you mean limit?)`},
		"nested_config":    {file: "config: x\n", want: `there is no key "config"`},
		"file_quoted_int":  {file: "limit: \"4\"\n", want: `want a whole number, such as 3`},
		"file_float":       {file: "limit: 4.5\n", want: `limit "4.5" (from limit in `},
		"file_bare_ttl":    {file: "ttl: 90\n", want: `want a duration with a unit, such as 90s or 5m`},
		"file_number_text": {file: "region: 7\n", want: `want a text`},
		"file_bool_text":   {file: "region: true\n", want: `want a text`},
		"file_quoted_bool": {file: "demo: \"true\"\n", want: `want true or false`},
		"file_norway": {file: "region: no\n",
			want: `want a text, in quotes if it looks like a number or yes or no`},
		"file_null":         {file: "limit:\n", want: `want a whole number, such as 3`},
		"file_list":         {file: "limit: [1]\n", want: `want a whole number, such as 3`},
		"file_number_list":  {file: "etcd-endpoints: [1]\n", want: `want a list, such as a,b,c`},
		"file_map":          {file: "limit: {a: 1}\n", want: `want a whole number, such as 3`},
		"file_twice":        {file: "limit: 1\nlimit: 2\n", want: `key "limit" already set`},
		"file_no_map":       {file: "- a\n", want: `want one "key: value" a line`},
		"file_out_of_range": {file: "limit: 61\n", want: `limit "61" (from limit in `},
		"no_file": {environ: env("STREAMCOUNT_CONFIG=/does/not/exist.yaml"),
			want: `config file: open /does/not/exist.yaml`},
	} {
		t.Run(name, r.check)
	}
}

func TestConfig_NeverEchoesAPassword(t *testing.T) {
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
	a, b := cfg.nodeName(), cfg.nodeName()
	assert.NotEqual(t, a, b)
	assert.Regexp(t, namePattern, a)
	cfg.Node = "n1"
	assert.Equal(t, "n1", cfg.nodeName())
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "", 3}, {"", "ab", 2},
		{"limit", "limit", 0}, {"limt", "limit", 1}, {"lmiit", "limit", 2},
	} {
		assert.Equal(t, tc.want, distance(tc.a, tc.b), tc)
		assert.Equal(t, tc.want, distance(tc.b, tc.a), tc)
	}
}
