package config

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTokens_Rejects(t *testing.T) {
	const issuer = "--token-issuer=https://t.example"
	const wantURL = "want a URL such as https://streams.example"
	for name, r := range map[string]rejection{
		"audience_alone": {args: words("--token-audience=edge"),
			want: `token-audience "edge" (from the command line): requires token-issuer`},
		"key_file_alone":     {args: words("--token-key-file=k"), want: `token-key-file "k" (from the command line): requires token-issuer`},
		"formats_file_alone": {args: words("--token-formats-file=f"), want: `token-formats-file "f" (from the command line): requires token-issuer`},
		"issuer_name":        {args: words("--token-issuer=streams"), want: `token-issuer "streams" (from the command line): ` + wantURL},
		"issuer_scheme":      {args: words("--token-issuer=ftp://t.example"), want: wantURL},
		"issuer_no_host":     {args: words("--token-issuer=https:///x"), want: wantURL},
		"issuer_query":       {args: words("--token-issuer=https://t.example?a=b"), want: wantURL},
		"issuer_fragment":    {environ: words("STREAMCOUNT_TOKEN_ISSUER=https://t.example#a"), want: "(from STREAMCOUNT_TOKEN_ISSUER): " + wantURL},
		"issuer_user":        {args: words("--token-issuer=https://u:hunter2@t.example"), want: wantURL},
		"algorithm":          {args: words(issuer, "--token-algorithm=none"), want: `token-algorithm "none" (from the command line): want ES256, EdDSA or HS256`},
		"algorithm_rsa":      {args: words(issuer, "--token-algorithm=RS256"), want: `token-algorithm "RS256" (from the command line): want ES256`},
		"algorithm_case":     {args: words(issuer, "--token-algorithm=es256"), want: `token-algorithm "es256" (from the command line): want ES256`},
		"secret_without_file": {args: words(issuer, "--token-algorithm=HS256"),
			want: `token-algorithm "HS256" (from the command line): requires token-key-file`},
		"life_short": {args: words(issuer, "--token-life=9s"), want: `token-life "9s" (from the command line): want 10s to 24h`},
		"life_long":  {args: words(issuer, "--token-life=24h1s"), want: `token-life "24h0m1s" (from the command line): want 10s to 24h`},
		"life_word":  {file: "token-issuer: https://t.example\ntoken-life: 50\n", want: "want a duration with a unit"},
	} {
		t.Run(name, func(t *testing.T) {
			r.check(t)
			_, err := load(t, r.args, r.environ, r.file)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestTokens_Accepts(t *testing.T) {
	for _, args := range [][]string{
		{"--token-issuer=https://t.example"},
		{"--token-issuer=http://127.0.0.1:3000/tokens", "--token-audience=edge", "--token-life=10s"},
		{"--token-issuer=https://t.example", "--token-algorithm=HS256", "--token-key-file=secret", "--token-life=24h"},
		{"--token-issuer=https://t.example", "--token-algorithm=EdDSA", "--token-formats-file=f"},
	} {
		_, err := load(t, args, nil, "")
		require.NoError(t, err, args)
	}
	cfg, err := load(t, []string{"--token-issuer=https://t.example"}, nil, "")
	require.NoError(t, err)
	assert.Equal(t, 50*time.Second, cfg.TokenLife)
	assert.Equal(t, "ES256", cfg.TokenAlgorithm)
}

// A life of tokens that does not fit the TTL causes a warning that states one that does.
func TestTokens_Warnings(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string // "" for no warning
	}{
		"no tokens":       {[]string{"--ttl=90s"}, ""},
		"recommended":     {[]string{"--token-issuer=https://t.example", "--ttl=60s"}, ""},
		"too short":       {[]string{"--token-issuer=https://t.example", "--ttl=60s", "--token-life=49s"}, "set token-life to 50s or more"},
		"for the default": {[]string{"--token-issuer=https://t.example"}, "set token-life to 1m10s or more"},
		"the longest":     {[]string{"--token-issuer=https://t.example", "--ttl=60s", "--token-life=70s"}, ""},
		"without effect":  {[]string{"--token-issuer=https://t.example", "--ttl=60s", "--token-life=71s"}, "it has the effect of 1m10s"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, c.args, nil, "")
			require.NoError(t, err)
			var log bytes.Buffer
			cfg.logTokenWarnings(slog.New(slog.NewTextHandler(&log, nil)))
			if c.want == "" {
				assert.Empty(t, log.String())
				return
			}
			assert.Contains(t, log.String(), c.want)
		})
	}
}
