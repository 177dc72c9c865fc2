package access

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documented returns the configurations in docs/identity-providers.md by their heading.
func documented(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../docs/identity-providers.md")
	require.NoError(t, err)
	out := map[string]string{}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		heading, _, _ := strings.Cut(section, "\n")
		blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(section, -1)
		require.Len(t, blocks, 1, heading)
		out[heading] = blocks[0][1]
	}
	return out
}

// A sample is a token like those of a provider, and the user that it must identify.
type sample struct {
	alg    string // of the provider's key; "HS256" for the secret
	key    members
	claims members
	header members
	user   string
	plan   string
}

// The configuration of each provider on the page accepts a token like those of the provider, and
// rejects one with another audience, issuer or required claim.
func TestProviders_DocumentedConfigurations(t *testing.T) {
	const entraTenant, entraApp = "11111111-2222-3333-4444-555555555555", "6731de76-14a6-49ae-97bc-6eba6914391e"
	const stytch = "project-live-00000000-0000-4000-8000-000000000000"
	const uuid = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	noType := members{"typ": nil}
	accessJWT := members{"typ": "at+jwt"}
	staff := members{"iss": "https://id.acme.example/realms/staff", "aud": "streams", "azp": "console", "typ": "Bearer", "sub": uuid, "preferred_username": "ann"}
	tv := members{"iss": cognito, "sub": uuid, "client_id": "1example23456789", "token_use": "access", "username": "maya"}
	auth0 := members{"iss": "https://acme.eu.auth0.com/", "sub": "google-oauth2|1", "aud": []string{"https://streams.acme.example", "https://acme.eu.auth0.com/userinfo"}, "azp": "c", "https://acme.example/plan": "family"}
	samples := map[string][]sample{
		"Auth0":                         {{alg: "RS256", key: members{"x5t": "QUJD", "x5c": []string{"AAAA"}}, claims: auth0, user: "google-oauth2|1", plan: "family"}},
		"Amazon Cognito, access tokens": {{alg: "RS256", claims: tv, header: noType, user: uuid}},
		"Amazon Cognito, ID tokens":     {{alg: "RS256", claims: with(tv, members{"client_id": nil, "aud": "1example23456789", "token_use": "id", "custom:plan": "family"}), header: noType, user: uuid, plan: "family"}},
		"Keycloak":                      {{alg: "PS256", claims: staff, user: uuid}, {alg: "EdDSA", claims: staff, user: uuid}},
		"Microsoft Entra ID": {
			{alg: "RS256", key: members{"alg": nil, "x5t": "k"}, claims: members{"iss": "https://login.microsoftonline.com/" + entraTenant + "/v2.0", "aud": entraApp, "oid": uuid, "sub": "AA/+="}, user: uuid},
			{alg: "RS256", key: members{"alg": nil}, claims: members{"iss": "https://sts.windows.net/" + entraTenant + "/", "aud": "api://" + entraApp, "oid": uuid, "ver": "1.0"}, user: uuid},
		},
		"Okta":     {{alg: "RS256", claims: members{"iss": "https://acme.okta.com/oauth2/default", "aud": "api://default", "sub": "maya@acme.example", "uid": "00u1gfl", "cid": "0oa", "scp": []string{"openid"}}, user: "00u1gfl"}},
		"Firebase": {{alg: "RS256", key: members{"certificate": true}, claims: members{"iss": "https://securetoken.google.com/acme-project", "aud": "acme-project", "sub": "UID", "user_id": "UID", "plan": "family", "auth_time": 1}, user: "UID", plan: "family"}},
		"Google": {
			{alg: "RS256", claims: members{"iss": "https://accounts.google.com", "aud": "1234567890-abc.apps.googleusercontent.com", "sub": "110169484474386276334", "email_verified": true}, user: "110169484474386276334"},
			{alg: "RS256", claims: members{"iss": "accounts.google.com", "aud": "1234567890-abc.apps.googleusercontent.com", "sub": "110169484474386276334"}, user: "110169484474386276334"},
		},
		"AD FS":                             {{alg: "RS256", claims: members{"iss": "http://fs.acme.example/adfs/services/trust", "aud": "microsoft:identityserver:streams", "upn": "ann@acme.example", "auth_time": "2026-01-01T00:00:00Z"}, header: members{"kid": nil, "x5t": "k"}, user: "ann@acme.example"}},
		"PingOne":                           {{alg: "RS256", claims: members{"iss": "https://auth.pingone.eu/11111111-2222-3333-4444-555555555555/as", "aud": []string{"https://streams.acme.example"}, "sub": uuid, "client_id": "c"}, header: accessJWT, user: uuid}},
		"PingAM and ForgeRock":              {{alg: "RS512", claims: members{"iss": "https://am.acme.example/am/oauth2/realms/root/realms/viewers", "aud": "streams", "sub": "(usr!maya)", "subname": "maya"}, user: "(usr!maya)"}},
		"Apple":                             {{alg: "RS256", claims: members{"iss": "https://appleid.apple.com", "aud": "com.acme.player", "sub": "001393.abc.1517", "email_verified": "true"}, header: noType, user: "001393.abc.1517"}},
		"WorkOS":                            {{alg: "RS256", key: members{"x5t#S256": "wrong"}, claims: members{"iss": "https://api.workos.com/user_management/client_01ACME", "sub": "user_01", "sid": "s", "org_id": "o"}, user: "user_01"}},
		"Asgardeo and WSO2 Identity Server": {{alg: "RS256", key: members{"x5t": "wrong", "x5c": []string{"AAAA"}}, claims: members{"iss": "https://api.asgardeo.io/t/acme/oauth2/token", "aud": "AbCdEf123456", "sub": uuid, "aut": "APPLICATION_USER", "scope": []string{"openid"}}, header: accessJWT, user: uuid}},
		"Zitadel":                           {{alg: "RS256", claims: members{"iss": "https://acme.zitadel.cloud", "aud": []string{"259254317079330818", "259254020357488642"}, "sub": "259242039378444290"}, user: "259242039378444290"}, {alg: "ES512", claims: members{"iss": "https://acme.zitadel.cloud", "aud": []string{"259254020357488642"}, "sub": "259242039378444290"}, user: "259242039378444290"}},
		"authentik":                         {{alg: "ES256", claims: members{"iss": "https://auth.acme.example/application/o/streams/", "aud": "dXNlci1jbGllbnQtaWQ", "sub": strings.Repeat("0a", 32)}, user: strings.Repeat("0a", 32)}},
		"Ory":                               {{alg: "RS256", claims: members{"iss": "https://acme.projects.oryapis.com", "aud": []string{}, "client_id": "c0ffee00-0000-4000-8000-000000000000", "sub": uuid, "ext": members{"plan": "family"}, "scp": []string{"offline"}}, user: uuid, plan: "family"}},
		"Supabase": {
			{alg: "ES256", claims: members{"iss": "https://abcdefgh.supabase.co/auth/v1", "aud": "authenticated", "role": "authenticated", "sub": uuid, "app_metadata": members{"plan": "family"}, "user_metadata": members{"plan": "free"}}, user: uuid, plan: "family"},
			{alg: "HS256", claims: members{"iss": "https://abcdefgh.supabase.co/auth/v1", "aud": "authenticated", "role": "authenticated", "sub": uuid}, user: uuid},
		},
		"Descope":    {{alg: "RS256", claims: members{"iss": "P2abcdefghijklmnopqrstuvwxyz", "aud": []string{"P2abcdefghijklmnopqrstuvwxyz"}, "sub": "U2abc", "drn": "DS"}, user: "U2abc"}},
		"Clerk":      {{alg: "RS256", claims: members{"iss": "https://clerk.acme.example", "azp": "https://acme.example", "sub": "user_2abc", "sid": "sess"}, user: "user_2abc"}, {alg: "RS256", claims: members{"iss": "https://clerk.acme.example", "aud": "streams", "sub": "user_2abc"}, user: "user_2abc"}},
		"FusionAuth": {{alg: "RS256", claims: members{"iss": "acme.com", "aud": "85a03867-dccf-4882-adde-1a79aeec50df", "sub": uuid, "roles": []string{}}, user: uuid}},
		"Stytch":     {{alg: "RS256", key: members{"key_ops": []string{"verify"}, "x5tS256": "AAAA"}, claims: members{"iss": "stytch.com/" + stytch, "aud": []string{stytch}, "sub": "user-live-1"}, user: "user-live-1"}},
		"Logto":      {{alg: "ES384", claims: members{"iss": "https://acme.logto.app/oidc", "aud": "https://streams.acme.example", "sub": "u1", "client_id": "c"}, header: accessJWT, user: "u1"}},
		"Several providers": {
			{alg: "RS256", claims: auth0, user: "web|google-oauth2|1"}, {alg: "RS256", claims: tv, user: "tv|" + uuid}, {alg: "ES256", claims: staff, user: "staff|ann"},
		},
	}
	pages := documented(t)
	for heading := range pages {
		assert.Contains(t, samples, heading, "a provider without a sample")
	}
	for heading, all := range samples {
		require.Contains(t, pages, heading, "a sample without a configuration")
		for n, s := range all {
			t.Run(heading, func(t *testing.T) { s.run(t, pages[heading], n) })
		}
	}
}

// run uses a configuration with the keys of the sample.
func (s sample) run(t *testing.T, config string, n int) {
	t.Helper()
	secret := []byte(strings.Repeat("s", 40))
	alg := s.alg
	if alg == "HS256" {
		alg = "ES256"
	}
	key, sign := signer(t, "k", alg)
	published := keySet(t, newIssuer(t, "other", alg).jwk(t), with(key.jwk(t), s.key))
	if s.key["certificate"] != nil {
		page, err := json.Marshal(map[string]string{"k": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificateOf(t, key)}))})
		require.NoError(t, err)
		published = page
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"auth.yaml": []byte(config), "legacy.secret": secret, "staff-keys.pem": publicPEM(t, key.key.Public()),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	entries, err := readAuthFile([]byte(config), dir)
	require.NoError(t, err)
	w := newWeb(nil)
	for _, e := range entries {
		if e.keys.url != "" {
			w.publish(e.keys.url, published)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		if s.alg == "HS256" {
			sign = func(claims, _ map[string]any) string { return hs256(t, secret, claims, members{"kid": "legacy"}) }
		}
		a := newAuthenticator(t, Config{AuthFile: filepath.Join(dir, "auth.yaml"), transport: w})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		defer func() { cancel(); assert.NoError(t, <-done) }()
		synctest.Wait()
		caller, err := a.as("Bearer " + sign(s.claims, s.header))
		require.NoError(t, err)
		assert.Equal(t, s.user, caller.Name)
		if n == 0 && len(entries) == 1 {
			assert.Equal(t, s.plan, caller.Plan)
		}
		p, err := a.viewers.issuers.Load().providerOf(jwt.MapClaims{"iss": s.claims["iss"]})
		require.NoError(t, err)
		changes := []members{{"iss": "https://evil.example"}, {"exp": time.Now().Add(-time.Hour).Unix()}, {p.user.String(): nil}}
		if !p.anyAudience {
			changes = append(changes, members{"aud": "another", "azp": "another", "client_id": "another"})
		}
		for _, r := range p.require {
			changes = append(changes, members{r.claim: "another"}, members{r.claim: nil})
		}
		for _, change := range changes {
			_, err := a.as("Bearer " + sign(with(s.claims, change), s.header))
			require.ErrorIs(t, err, ErrCredential, "%v", change)
		}
	})
}
