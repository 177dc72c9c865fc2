package config

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"streamcount/token"
)

// tokenConfig configures playback tokens. Each field is a flag.
type tokenConfig struct {
	TokenIssuer      string
	TokenAudience    string
	TokenLife        time.Duration
	TokenAlgorithm   string
	TokenKeyFile     string
	TokenFormatsFile string
}

func (c *tokenConfig) register(fs *pflag.FlagSet) {
	fs.StringVar(&c.TokenIssuer, "token-issuer", "",
		"`URL` of this service in the claim iss of playback tokens, which starts and heartbeats return (default no tokens)")
	fs.StringVar(&c.TokenAudience, "token-audience", "", "`name` of the edges in the claim aud of playback tokens (default no such claim)")
	fs.DurationVar(&c.TokenLife, "token-life", 50*time.Second,
		"how long a playback token is valid, 10s to 24h; two thirds of ttl and 10s or more, so that players get the next in time")
	fs.StringVar(&c.TokenAlgorithm, "token-algorithm", string(token.ES256),
		"`algorithm` of playback tokens: ES256, EdDSA, or HS256, which requires token-key-file")
	fs.StringVar(&c.TokenKeyFile, "token-key-file", "",
		"`file` with the key of playback tokens: PEM, a JWK or a JWK set, or the secret of HS256; reloaded when it changes (default keys in etcd)")
	fs.StringVar(&c.TokenFormatsFile, "token-formats-file", "",
		"YAML `file` with the keys of playback tokens for Akamai, nginx and CloudFront; reloaded when it changes")
}

// Limits of --token-life.
const (
	minTokenLife = 10 * time.Second
	maxTokenLife = 24 * time.Hour
)

func (c *Config) checkTokens() error {
	for _, f := range []struct{ key, value string }{
		{"token-audience", c.TokenAudience}, {"token-key-file", c.TokenKeyFile}, {"token-formats-file", c.TokenFormatsFile},
	} {
		if err := c.check(f.value == "" || c.TokenIssuer != "", f.key, f.value, "requires token-issuer"); err != nil {
			return err
		}
	}
	if c.TokenIssuer == "" {
		return nil
	}
	u, err := url.Parse(c.TokenIssuer)
	web := err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
	return cmp.Or(
		c.check(web, "token-issuer", redactAddress(c.TokenIssuer), "want a URL such as https://streams.example, without a user, query and fragment"),
		c.check(slices.Contains([]token.Algorithm{token.ES256, token.EdDSA, token.HS256}, token.Algorithm(c.TokenAlgorithm)), "token-algorithm",
			c.TokenAlgorithm, "want ES256, EdDSA or HS256"),
		c.check(c.TokenAlgorithm != string(token.HS256) || c.TokenKeyFile != "", "token-algorithm", c.TokenAlgorithm,
			"requires token-key-file, because the edges need the same secret"),
		c.check(c.TokenLife >= minTokenLife && c.TokenLife <= maxTokenLife, "token-life", c.TokenLife.String(), "want 10s to 24h"),
	)
}

// shortestTokenLife is the shortest life of tokens with which a player that loses one heartbeat has
// a valid token until the next.
func (c *Config) shortestTokenLife() time.Duration { return 2*c.TTL/3 + 10*time.Second }

// logTokenWarnings logs a life of tokens that does not fit the TTL.
func (c *Config) logTokenWarnings(log *slog.Logger) {
	switch shortest, longest := c.shortestTokenLife(), c.TTL+token.Grace; {
	case c.TokenIssuer == "":
	case c.TokenLife < shortest:
		log.Warn(fmt.Sprintf("token-life is less than two thirds of ttl and 10s, so playback may stop if one heartbeat is lost: "+
			"set token-life to %v or more, or a shorter ttl", shortest), "token-life", c.TokenLife, "ttl", c.TTL)
	case c.TokenLife > longest:
		log.Warn(fmt.Sprintf("token-life is more than ttl and 10s, which is the longest life of a token: it has the effect of %v", longest),
			"token-life", c.TokenLife, "ttl", c.TTL)
	}
}
