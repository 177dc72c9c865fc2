package main

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"streamcount/access"
)

// authConfig says who may call. Each field is a flag.
type authConfig struct {
	AuthNone   bool
	KeysFile   string
	JWKSURL    string
	JWKSFile   string
	SecretFile string
	Issuer     string
	Audience   string
	PlanClaim  string
	LimitClaim string
	Leeway     time.Duration
	StreamIDs  bool
}

func (c *authConfig) register(fs *pflag.FlagSet) {
	fs.BoolVar(&c.AuthNone, "auth-none", false,
		"let whoever reaches the port act for any user, at an address that is not this machine's alone")
	fs.StringVar(&c.KeysFile, "auth-keys-file", "", "YAML `file` of API keys, made with \"streamcount keys new\"")
	fs.StringVar(&c.JWKSURL, "auth-jwks-url", "", "`URL` of the public keys that viewers' tokens are signed with")
	fs.StringVar(&c.JWKSFile, "auth-jwks-file", "", "`file` with those keys instead")
	fs.StringVar(&c.SecretFile, "auth-secret-file", "",
		"`file` with the secret of HS256 tokens instead, 32 bytes or more")
	fs.StringVar(&c.Issuer, "auth-issuer", "", "`iss` that viewers' tokens must have")
	fs.StringVar(&c.Audience, "auth-audience", "", "`aud` that viewers' tokens must have")
	fs.StringVar(&c.PlanClaim, "auth-plan-claim", "", "`claim` of viewers' tokens that names the user's plan")
	fs.StringVar(&c.LimitClaim, "auth-limit-claim", "", "`claim` of viewers' tokens that is the user's limit")
	fs.DurationVar(&c.Leeway, "auth-leeway", 30*time.Second, "how far clocks may differ when tokens are checked")
	fs.BoolVar(&c.StreamIDs, "auth-stream-ids", true,
		"let whoever knows a stream's id send its heartbeats and stop it, without a credential")
}

// access is what the flags say, as package access takes it.
func (c *authConfig) access(log *slog.Logger) access.Config {
	return access.Config{
		KeysFile: c.KeysFile, Log: log,
		Tokens: access.TokenConfig{
			JWKSURL: c.JWKSURL, JWKSFile: c.JWKSFile, SecretFile: c.SecretFile, Issuer: c.Issuer,
			Audience: c.Audience, PlanClaim: c.PlanClaim, LimitClaim: c.LimitClaim, Leeway: c.Leeway,
		},
	}
}

// checkAuth looks for contradictions. What the files hold is checked when they
// are read.
func (c *Config) checkAuth() error {
	configured := c.access(nil).Configured()
	source := cmp.Or(c.JWKSURL, c.JWKSFile, c.SecretFile)
	for _, f := range []struct{ key, value string }{
		{"auth-issuer", c.Issuer}, {"auth-audience", c.Audience}, {"auth-plan-claim", c.PlanClaim},
		{"auth-limit-claim", c.LimitClaim},
	} {
		if err := c.check(source != "" || f.value == "", f.key, f.value,
			"is about viewers' tokens: set auth-jwks-url, auth-jwks-file or auth-secret-file too"); err != nil {
			return err
		}
	}
	return cmp.Or(
		c.check(!c.AuthNone || !configured, "auth-none", "true",
			"contradicts the other auth flags, which ask for credentials: remove one of the two"),
		c.check(source == "" || c.Issuer != "", "auth-issuer", "", "want the iss of viewers' tokens"),
		c.check(source == "" || c.Audience != "", "auth-audience", "", "want the aud of viewers' tokens"),
		c.check(c.Leeway >= 0 && c.Leeway <= 5*time.Minute, "auth-leeway", c.Leeway.String(), "want 0s to 5m"),
		c.check(c.StreamIDs || configured, "auth-stream-ids", "false",
			"asks for credentials, but there are none: set auth-keys-file or a source of viewers' tokens"),
		c.check(!c.Demo || !configured, "demo", "true", "its viewers have no credentials: remove the auth flags"),
	)
}
