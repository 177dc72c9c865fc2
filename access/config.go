package access

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"streamcount/lease/userid"
)

// Config configures the credentials.
type Config struct {
	KeysFile string // of API keys; "" for none
	// AuthFile is a YAML file with the issuers of viewers' tokens; "" for none.
	AuthFile string
	// Tokens is one issuer, in place of an AuthFile.
	Tokens TokenConfig
	Log    *slog.Logger // nil means slog.Default()

	transport http.RoundTripper // for tests; nil means the network
}

// TokenConfig configures which viewers' tokens of one issuer are accepted. Exactly one of
// the sources of keys is set.
type TokenConfig struct {
	JWKSURL    string // https, or http on this machine
	JWKSFile   string
	SecretFile string // of HS256; 32 bytes or more
	Issuer     string // the iss that tokens must have
	Audience   string // and one of their aud
	// UserClaim names the claim with the user id; "" means sub.
	UserClaim string
	// PlanClaim and LimitClaim name the claims with the user's plan and limit; "" for none.
	PlanClaim, LimitClaim string
	// ProfileClaim and PriorityClaim name the claims with the profile and the priority of the
	// user's streams; "" for none. LabelClaims are KEY=CLAIM: a claim, and the key of the label
	// that it becomes.
	ProfileClaim, PriorityClaim string
	LabelClaims                 []string
	Leeway                      time.Duration // allowed difference of clocks
	MaxAge                      time.Duration // of a token, from iat to exp; 0 for any
	Types                       []string      // the typ of a token's header is one of these; none for any
}

// Configured reports whether any credentials are configured.
func (c Config) Configured() bool { return c.KeysFile != "" || c.tokens() }

func (c Config) tokens() bool { return c.AuthFile != "" || c.Tokens.configured() }

func (c TokenConfig) configured() bool {
	return c.JWKSURL != "" || c.JWKSFile != "" || c.SecretFile != ""
}

// shortFormName is the name of the only issuer of a TokenConfig.
const shortFormName = "default"

// provider is the configuration as one entry of an auth file.
func (c TokenConfig) provider() (providerConfig, error) {
	sources := 0
	for _, s := range []string{c.JWKSURL, c.JWKSFile, c.SecretFile} {
		if s != "" {
			sources++
		}
	}
	switch {
	case c.Issuer == "" || c.Audience == "":
		return providerConfig{}, errors.New("viewers' tokens need an issuer and an audience: without them a token made for " +
			"another service would be accepted here")
	case sources != 1:
		return providerConfig{}, errors.New("viewers' tokens are checked by one source of keys: a JWKS URL, a JWKS file or a " +
			"secret. An auth file can have several")
	}
	out := newProviderConfig()
	out.name, out.issuers = shortFormName, []string{c.Issuer}
	out.keys, out.secretFile = keysConfig{url: c.JWKSURL, file: c.JWKSFile}, c.SecretFile
	out.audience = []audienceRule{{claimPath{"aud"}, []string{c.Audience}}}
	out.leeway, out.maxAge, out.types = c.Leeway, c.MaxAge, slices.Clone(c.Types)
	for _, claim := range []struct {
		name string
		path *claimPath
	}{{c.UserClaim, &out.user}, {c.PlanClaim, &out.plan}, {c.LimitClaim, &out.limit}, {c.ProfileClaim, &out.profile},
		{c.PriorityClaim, &out.priority}} {
		if claim.name != "" {
			*claim.path = claimPath{claim.name}
		}
	}
	var err error
	if out.labels, err = parseLabelClaims(c.LabelClaims); err != nil {
		return providerConfig{}, err
	}
	return out, out.check()
}

// A providerConfig is an entry of the auth file: which tokens of one identity provider are
// accepted.
type providerConfig struct {
	name        string
	issuers     []string // iss is one of these
	keys        keysConfig
	secretFile  string
	anyAudience bool // audience: any
	audience    []audienceRule
	require     []requirement
	user        claimPath
	plan        claimPath // nil for none
	limit       claimPath // nil for none
	labels      []labelClaim
	profile     claimPath // nil for none
	priority    claimPath // nil for none
	userPrefix  string
	sameUsers   bool
	algorithms  []string // nil for those of the keys
	leeway      time.Duration
	maxAge      time.Duration // 0 for any
	types       []string      // nil for any
}

// keysConfig is the source of public keys. At most one of url and file is set.
type keysConfig struct {
	url, file, ca string
	plainHTTP     bool
}

// An audienceRule requires a claim to have one of some values.
type audienceRule struct {
	claim  claimPath
	values []string
}

// A requirement requires a claim to have one of some values: text, boolean or a whole
// number as json.Number.
type requirement struct {
	claim  string
	values []any
}

const (
	defaultLeeway = 30 * time.Second
	maxLeeway     = 5 * time.Minute
	maxIssuers    = 32
)

func newProviderConfig() providerConfig {
	return providerConfig{user: claimPath{"sub"}, leeway: defaultLeeway}
}

// check returns an error if an entry is incomplete, unsafe or contradictory.
func (c *providerConfig) check() error {
	for i, t := range c.types {
		c.types[i] = tokenType(t)
	}
	for _, check := range []func() error{c.keys.check, c.checkAlgorithms, c.checkAudienceRules, c.checkClaims} {
		if err := check(); err != nil {
			return err
		}
	}
	switch {
	case len(c.issuers) == 0 || slices.Contains(c.issuers, ""):
		return errors.New("issuer: want the iss of the provider's tokens")
	case c.keys == keysConfig{} && c.secretFile == "":
		return errors.New("no keys: want jwks, secretFile or both")
	case slices.Contains(c.types, ""):
		return errors.New("types: want types such as at+jwt")
	case c.leeway < 0 || c.leeway > maxLeeway:
		return errors.New("leeway: want 0s to 5m")
	case c.maxAge < 0:
		return errors.New("maxAge: want a duration such as 24h")
	}
	if fault := userid.PrefixFault(c.userPrefix); fault != "" {
		return fmt.Errorf("userPrefix: %s", fault)
	}
	return nil
}

func (c *keysConfig) check() error {
	switch {
	case c.url != "" && c.file != "":
		return errors.New("jwks: want url or file, not both")
	case c.url == "" && (c.ca != "" || c.plainHTTP):
		return errors.New("jwks: ca and plainHTTP belong to a url")
	case c.url == "":
		return nil
	}
	u, err := url.Parse(c.url)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("jwks: the JWKS URL is not a URL: want https://HOST/PATH")
	case u.User != nil:
		return errors.New("jwks: the JWKS URL has a user in it: want https://HOST/PATH")
	case u.Scheme == "http" && !c.plainHTTP && !loopback(u.Hostname()):
		return fmt.Errorf("jwks: the JWKS URL of %s is not https: others in the network could replace the keys; "+
			"if the network to it is trusted, set plainHTTP: true in an auth file", u.Host)
	case u.Scheme == "http" && c.ca != "":
		return errors.New("jwks: ca is for an https URL")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// secretAlgorithm is the algorithm of secret files.
const secretAlgorithm = "HS256"

func (c *providerConfig) checkAlgorithms() error {
	for i, alg := range c.algorithms {
		c.algorithms[i] = algorithmName(alg)
		switch {
		case alg == secretAlgorithm && c.secretFile == "":
			return errors.New("algorithms: HS256 needs secretFile")
		case alg == secretAlgorithm:
		case !slices.Contains(asymmetric, alg):
			return fmt.Errorf("algorithms: %q is unknown: want %s or HS256", short(alg), strings.Join(asymmetric, ", "))
		case c.keys == keysConfig{}:
			return fmt.Errorf("algorithms: %s needs jwks", alg)
		}
	}
	if c.algorithms != nil && c.secretFile != "" && !slices.Contains(c.algorithms, secretAlgorithm) {
		return errors.New("algorithms: secretFile is for HS256, which is not among them")
	}
	return nil
}

// allows reports whether tokens of algorithm alg are accepted by the configuration.
func (c *providerConfig) allows(alg string) bool {
	switch {
	case c.algorithms != nil:
		return slices.Contains(c.algorithms, alg)
	case alg == secretAlgorithm:
		return c.secretFile != ""
	}
	return c.keys != keysConfig{} && slices.Contains(asymmetric, alg)
}

// sharedIssuers are hosts of issuers under which many customers have tokens.
var sharedIssuers = []string{
	"accounts.google.com", "appleid.apple.com", "account.apple.com", "login.microsoftonline.com", "login.microsoftonline.us",
	"login.partner.microsoftonline.cn", "sts.windows.net", "sts.chinacloudapi.cn", "www.facebook.com", "facebook.com",
	"www.linkedin.com", "id.twitch.tv", "access.line.me", "slack.com", "kauth.kakao.com", "gitlab.com",
	"token.actions.githubusercontent.com",
}

func (c *providerConfig) checkAudienceRules() error {
	switch {
	case !c.anyAudience && len(c.audience) == 0:
		return errors.New("no audience: without it a token made for another service would be accepted here; " +
			"if the provider cannot name one, set audience: any")
	case !c.anyAudience:
		return nil
	}
	for _, issuer := range c.issuers {
		host := issuer
		if u, err := url.Parse(issuer); err == nil && u.Host != "" {
			host = u.Hostname()
		}
		if slices.Contains(sharedIssuers, strings.ToLower(host)) {
			return fmt.Errorf("audience: any is refused for %s: its tokens are made for many services", host)
		}
	}
	return nil
}

// editable are claims that users change themselves.
var editable = []string{"user_metadata", "unsafe_metadata"}

func (c *providerConfig) checkClaims() error {
	paths := []claimPath{c.user, c.plan, c.limit, c.profile, c.priority}
	for _, l := range c.labels {
		paths = append(paths, l.claim)
	}
	for _, rule := range c.audience {
		paths = append(paths, rule.claim)
	}
	for _, path := range paths {
		for _, name := range path {
			if slices.Contains(editable, name) {
				return fmt.Errorf("%s: users edit %s themselves", path, name)
			}
		}
	}
	if err := checkLabelClaims(c.labels); err != nil {
		return err
	}
	if slices.Equal(c.user, claimPath{"email"}) && !slices.ContainsFunc(c.require, func(r requirement) bool {
		return r.claim == "email_verified" && !slices.ContainsFunc(r.values, func(v any) bool { return v != true && v != "true" })
	}) {
		return errors.New("user: email can be anything until it is verified: set require: {email_verified: true} in an auth file")
	}
	return nil
}

// checkIssuers returns an error if entries share a name, an issuer or user ids.
func checkIssuers(entries []providerConfig) error {
	names, of := map[string]bool{}, map[string]string{}
	for i, e := range entries {
		switch {
		case names[e.name]:
			return fmt.Errorf("%s: the name is used twice", entryName(i, e.name))
		case i >= maxIssuers:
			return fmt.Errorf("%d issuers: want at most %d", len(entries), maxIssuers)
		}
		names[e.name] = true
		for _, issuer := range e.issuers {
			if other, ok := of[issuer]; ok {
				return fmt.Errorf("%s: issuer is also that of %s", entryName(i, e.name), other)
			}
			of[issuer] = e.name
		}
		for _, o := range entries[:i] {
			overlap := strings.HasPrefix(o.userPrefix, e.userPrefix) || strings.HasPrefix(e.userPrefix, o.userPrefix)
			if overlap && (!o.sameUsers || !e.sameUsers) {
				return fmt.Errorf("%s: users may collide with those of %s: give both a userPrefix, of which neither begins "+
					"with the other, or set sameUsers: true in both", entryName(i, e.name), o.name)
			}
		}
	}
	return nil
}

func entryName(i int, name string) string {
	if name == "" {
		return fmt.Sprintf("issuer %d", i+1)
	}
	return fmt.Sprintf("issuer %d (%s)", i+1, name)
}
