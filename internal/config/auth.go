package config

import (
	"cmp"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"streamcount/access"
)

// authConfig configures credentials. Each field is a flag.
type authConfig struct {
	AuthNone   bool
	KeysFile   string
	AuthFile   string
	JWKSURL    string
	JWKSFile   string
	SecretFile string
	Issuer     string
	Audience   string
	UserClaim  string
	PlanClaim  string
	LimitClaim string
	Profile    string
	Priority   string
	Labels     []string
	Leeway     time.Duration
	MaxAge     time.Duration
	Types      []string
	StreamIDs  bool
}

func (c *authConfig) register(fs *pflag.FlagSet) {
	fs.BoolVar(&c.AuthNone, "auth-none", false,
		"accept calls from other machines without a credential; every caller may act for any user")
	fs.StringVar(&c.KeysFile, "auth-keys-file", "", "YAML `file` with API keys; create entries with \"streamcount keys new\"")
	fs.StringVar(&c.AuthFile, "auth-file", "",
		"YAML `file` with the issuers of viewers' tokens; excludes the flags for a single issuer")
	fs.StringVar(&c.JWKSURL, "auth-jwks-url", "", "`URL` of the JSON Web Key Set that verifies viewers' tokens")
	fs.StringVar(&c.JWKSFile, "auth-jwks-file", "", "`file` with the JSON Web Key Set, instead of auth-jwks-url")
	fs.StringVar(&c.SecretFile, "auth-secret-file", "",
		"`file` with the secret of HS256 tokens, 32 bytes or more, instead of auth-jwks-url")
	fs.StringVar(&c.Issuer, "auth-issuer", "", "required `iss` of viewers' tokens")
	fs.StringVar(&c.Audience, "auth-audience", "", "required `aud` of viewers' tokens")
	fs.StringVar(&c.UserClaim, "auth-user-claim", "sub", "`claim` of viewers' tokens that contains the user id")
	fs.StringVar(&c.PlanClaim, "auth-plan-claim", "", "`claim` of viewers' tokens that contains the name of the user's plan")
	fs.StringVar(&c.LimitClaim, "auth-limit-claim", "", "`claim` of viewers' tokens that contains the user's limit")
	listVar(fs, &c.Labels, "auth-label-claim",
		"labels of a viewer's streams by claims of the token, as `KEY=CLAIM`; may be repeated")
	fs.StringVar(&c.Profile, "auth-profile-claim", "",
		"`claim` of viewers' tokens that contains the profile; players may then not state one")
	fs.StringVar(&c.Priority, "auth-priority-claim", "", "`claim` of viewers' tokens that contains the priority of streams, 0 to 9")
	fs.DurationVar(&c.Leeway, "auth-leeway", 30*time.Second, "maximum difference of clocks that is tolerated when tokens are verified, 0s to 5m")
	fs.DurationVar(&c.MaxAge, "auth-max-age", 0, "maximum lifetime of viewers' tokens, from iat to exp; 0s disables the check")
	listVar(fs, &c.Types, "auth-types",
		"accepted `types` (typ header) of viewers' tokens, such as at+jwt (default any)")
	fs.BoolVar(&c.StreamIDs, "auth-stream-ids", true,
		"accept heartbeats and stops that present the id of the stream and no credential")
}

// AuthFlags returns the flags about credentials, which set c.
func (c *Config) AuthFlags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("auth", pflag.ContinueOnError)
	c.authConfig.register(fs)
	return fs
}

// LoadAuth sets c, whose flags about credentials are fs, and validates it.
func (c *Config) LoadAuth(fs *pflag.FlagSet, environ []string) error {
	from, err := Resolve(fs, environ)
	if err != nil {
		return err
	}
	c.from = from
	return c.checkAuth()
}

// Access returns the configuration of package access.
func (c *authConfig) Access(log *slog.Logger) access.Config {
	return access.Config{
		KeysFile: c.KeysFile, AuthFile: c.AuthFile, Log: log,
		Tokens: access.TokenConfig{
			JWKSURL: c.JWKSURL, JWKSFile: c.JWKSFile, SecretFile: c.SecretFile, Issuer: c.Issuer,
			Audience: c.Audience, UserClaim: c.UserClaim, PlanClaim: c.PlanClaim, LimitClaim: c.LimitClaim,
			LabelClaims: c.Labels, ProfileClaim: c.Profile, PriorityClaim: c.Priority,
			Leeway: c.Leeway, MaxAge: c.MaxAge, Types: c.Types,
		},
	}
}

// singleIssuerFlags returns the names and values of the flags for a single issuer. The first
// three are the sources of its keys.
func (c *authConfig) singleIssuerFlags() [][2]string {
	return [][2]string{
		{"auth-jwks-url", c.JWKSURL}, {"auth-jwks-file", c.JWKSFile}, {"auth-secret-file", c.SecretFile},
		{"auth-issuer", c.Issuer}, {"auth-audience", c.Audience}, {"auth-user-claim", c.UserClaim},
		{"auth-plan-claim", c.PlanClaim}, {"auth-limit-claim", c.LimitClaim},
		{"auth-label-claim", strings.Join(c.Labels, ",")}, {"auth-profile-claim", c.Profile},
		{"auth-priority-claim", c.Priority}, {"auth-leeway", c.Leeway.String()},
		{"auth-max-age", c.MaxAge.String()}, {"auth-types", strings.Join(c.Types, ",")},
	}
}

// checkAuth checks the combinations of flags. The contents of the files are checked when they
// are loaded.
func (c *Config) checkAuth() error {
	configured := c.Access(nil).Configured()
	source := cmp.Or(c.JWKSURL, c.JWKSFile, c.SecretFile)
	for i, f := range c.singleIssuerFlags() {
		set := c.Source(f[0]) != FromDefault
		if err := cmp.Or(
			c.check(c.AuthFile == "" || !set, f[0], f[1],
				"configures a single issuer and cannot be combined with auth-file: remove one of them"),
			c.check(source != "" || i < 3 || f[0] == "auth-leeway" || !set, f[0], f[1],
				"requires auth-jwks-url, auth-jwks-file or auth-secret-file"),
		); err != nil {
			return err
		}
	}
	if err := access.CheckLabelClaims(c.Labels); err != nil {
		return c.check(false, "auth-label-claim", strings.Join(c.Labels, ","), err.Error())
	}
	return cmp.Or(
		c.check(!c.AuthNone || !configured, "auth-none", "true",
			"cannot be combined with auth flags that require credentials: remove one of them"),
		c.check(source == "" || c.Issuer != "", "auth-issuer", "", "want the iss of viewers' tokens"),
		c.check(source == "" || c.Audience != "", "auth-audience", "", "want the aud of viewers' tokens"),
		c.check(c.Leeway >= 0 && c.Leeway <= 5*time.Minute, "auth-leeway", c.Leeway.String(), "want 0s to 5m"),
		c.check(c.MaxAge >= 0, "auth-max-age", c.MaxAge.String(), "want 0s or more"),
		c.check(c.StreamIDs || configured, "auth-stream-ids", "false",
			"requires auth-keys-file or a source of viewers' tokens"),
		c.check(!c.Demo || !configured, "demo", "true", "cannot be combined with auth flags: the simulated viewers have no credentials"),
	)
}
