package access

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAuthFile_Errors(t *testing.T) {
	const good = `issuers:
- name: web
  issuer: https://p.example
  jwks: {url: "https://p.example/keys"}
  audience: {values: [streams]}
`
	_, err := readAuthFile([]byte(good), "/")
	require.NoError(t, err)
	in := func(old, new string) string {
		require.Contains(t, good, old)
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ file, want string }{
		"empty":             {"", "want members, this is nothing"},
		"no issuers":        {"issuers:", "no issuers: want a list"},
		"empty object":      {"{}", "no issuers: want a list"},
		"issuers text":      {"issuers: x", "issuers: want a list, this is text"},
		"syntax":            {"issuers: [", "not an auth file"},
		"twice":             {good + "issuers: []", "not an auth file"},
		"unknown":           {good + "  plans: x", `issuer 1 (web): unknown member "plans": the members are`},
		"capitals":          {in("audience", "Audience"), `unknown member "Audience": did you mean "audience"?`},
		"both capitals":     {good + "  Issuer: x", `unknown member "Issuer": did you mean "issuer"?`},
		"capitals inside":   {in("url", "URL"), `jwks: unknown member "URL": did you mean "url"?`},
		"number":            {in("https://p.example\n", "1e5\n"), "issuer: want text in quotes, this is a number"},
		"no":                {in("https://p.example\n", "no\n"), "issuer: want text in quotes, this is true or false"},
		"null":              {in("https://p.example\n", "\n"), "issuer: want text in quotes, this is nothing"},
		"empty issuer":      {in("https://p.example\n", `""`+"\n"), "issuer: it is empty"},
		"no issuer":         {in("  issuer: https://p.example\n", ""), "issuer 1 (web): issuer: want the iss"},
		"no name":           {in("name: web\n  ", ""), "issuer 1: name: want 1 to 32 letters"},
		"bad name":          {in("name: web", "name: Web"), "name: want 1 to 32 letters"},
		"number name":       {in("name: web", "name: 7"), "name: want text in quotes, this is a number"},
		"name twice":        {good + good[len("issuers:\n"):], "issuer 2 (web): the name is used twice"},
		"issuer twice":      {good + strings.Replace(good[len("issuers:\n"):], "web", "tv", 1) + "  userPrefix: x", "issuer 2 (tv): issuer is also that of web"},
		"no keys":           {in(`  jwks: {url: "https://p.example/keys"}`+"\n", ""), "no keys: want jwks, secretFile or both"},
		"empty jwks":        {in(`url: "https://p.example/keys"`, ""), "jwks: want url or file"},
		"url and file":      {in("keys\"", `keys", file: a`), "want url or file, not both"},
		"ca of a file":      {in(`url: "https://p.example/keys"`, "file: a, ca: b"), "ca and plainHTTP belong to a url"},
		"http":              {in(`"https://p.example/keys`, `"http://p.example/keys`), "is not https"},
		"not a url":         {in(`"https://p.example/keys`, `"p.example/keys`), "is not a URL: want https://HOST/PATH"},
		"no host":           {in(`"https://p.example/keys`, `"https://:443/keys`), "is not a URL: want https://HOST/PATH"},
		"two documents":     {good + "---\nissuers: []\n", "several YAML documents"},
		"second after end":  {good + "...\n--- # more\nissuers: []\n", "several YAML documents"},
		"empty type":        {good + `  types: ["application/"]`, "types: want types such as at+jwt"},
		"other scheme":      {in(`"https://p.example/keys`, `"file:///keys`), "is not a URL: want https://HOST/PATH"},
		"user in url":       {in(`"https://p.example/keys`, `"https://u:hunter2@p.example/keys`), "has a user in it"},
		"text for boolean":  {in("keys\"", `keys", plainHTTP: "true"`), "plainHTTP: want true or false, this is text"},
		"no audience":       {in("  audience: {values: [streams]}\n", ""), "no audience: without it"},
		"audience text":     {in("{values: [streams]}", "streams"), "audience: want {claim: aud, values: [...]}, a list of these, or any"},
		"no values":         {in("values: [streams]", "claim: aud"), "audience: want values"},
		"empty values":      {in("[streams]", "[]"), "values: the list is empty"},
		"numeric audience":  {in("[streams]", "[12345]"), "values: want text in quotes, this is a number"},
		"none":              {good + "  algorithms: [none]", `algorithms: "none" is unknown`},
		"lower case":        {good + "  algorithms: [rs256]", `algorithms: "rs256" is unknown`},
		"HS256":             {good + "  algorithms: [HS256]", "algorithms: HS256 needs secretFile"},
		"HS512":             {good + "  algorithms: [HS512]", `algorithms: "HS512" is unknown`},
		"RS256 of secret":   {in(`jwks: {url: "https://p.example/keys"}`, "secretFile: s") + "  algorithms: [RS256]", "algorithms: RS256 needs jwks"},
		"unused secret":     {good + "  secretFile: s\n  algorithms: [RS256]", "algorithms: secretFile is for HS256, which is not among them"},
		"plan of users":     {good + "  plan: [user_metadata, plan]", "user_metadata.plan: users edit user_metadata themselves"},
		"limit of users":    {good + "  limit: [unsafe_metadata, streams]", "users edit unsafe_metadata themselves"},
		"labels of users":   {good + "  labels: {tier: [user_metadata, tier]}", "users edit user_metadata themselves"},
		"profile of users":  {good + "  profile: [user_metadata, profile]", "users edit user_metadata themselves"},
		"priority of users": {good + "  priority: [unsafe_metadata, p]", "users edit unsafe_metadata themselves"},
		"labels list":       {good + "  labels: [tier]", "labels: want members, this is a list"},
		"label key":         {good + "  labels: {a b: tier}", `labels: "a b" is not the key of a label`},
		"label number":      {good + "  labels: {tier: 7}", "labels: tier: want text in quotes, this is a number"},
		"too many labels":   {good + "  labels: {a: x, b: x, c: x, d: x, e: x, f: x, g: x, h: x, i: x}", "labels: want at most 8"},
		"user of users":     {good + "  user: [user_metadata, id]", "users edit user_metadata themselves"},
		"email":             {good + "  user: email", "user: email can be anything until it is verified"},
		"unverified email":  {good + "  user: email\n  require: {email_verified: [true, false]}", "user: email can be anything"},
		"leeway":            {good + "  leeway: 6m", "leeway: want 0s to 5m"},
		"leeway number":     {good + "  leeway: 30", "leeway: want a duration with a unit"},
		"maxAge":            {good + "  maxAge: 1d", "maxAge: want a duration with a unit"},
		"maxAge negative":   {good + "  maxAge: -1h", "maxAge: want a duration"},
		"prefix":            {good + `  userPrefix: "a\n"`, "userPrefix: it has a control character"},
		"require":           {good + "  require: [a]", "require: want members, this is a list"},
		"require float":     {good + "  require: {a: 1.5}", "require: a: want text, true, false or a whole number"},
		"require object":    {good + "  require: {a: {b: c}}", "require: a: want text, true, false or a whole number"},
		"require nothing":   {good + "  require: {a: []}", "require: a: want a value"},
		"claim of a number": {good + "  user: 7", "user: want text in quotes, this is a number"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readAuthFile([]byte(c.file), "/")
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "hunter2")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
	for _, same := range []string{"---\n" + good, "# c\n\n---\n" + good, good + "---\n", good + "...\n# end\n", "%YAML 1.1\n---\n" + good} {
		_, err := readAuthFile([]byte(same), "/")
		require.NoError(t, err, same)
	}
	_, err = readKeys([]byte("keys: []\n---\nkeys: []\n"))
	require.ErrorContains(t, err, "several YAML documents")
	var many strings.Builder
	many.WriteString("issuers:\n")
	for n := range maxIssuers + 1 {
		id := fmt.Sprint(n, "-")
		many.WriteString(strings.NewReplacer("web", "p"+id, "p.example\n", "p"+id+".example\n").Replace(good[len("issuers:\n"):]) +
			"  userPrefix: \"" + id + "\"\n")
	}
	_, err = readAuthFile([]byte(many.String()), "/")
	require.EqualError(t, err, "33 issuers: want at most 32")
}

func TestAuthFile_EveryMember(t *testing.T) {
	entries, err := readAuthFile([]byte(`issuers:
- name: all
  issuer: [https://a.example, a.example]
  jwks: {url: "http://keys.svc:8080/keys", plainHTTP: true}
  secretFile: legacy.secret
  audience: [{values: [streams, "42"]}, {claim: azp, values: [console]}]
  require: {typ: Bearer, level: [1, 2], verified: true}
  user: [ext, id]
  plan: https://acme.example/plan
  limit: [app_metadata, limit]
  labels: {tier: https://acme.example/tier, member: [app_metadata, member]}
  profile: profile
  priority: [app_metadata, priority]
  userPrefix: "all|"
  sameUsers: true
  algorithms: [PS256, Ed25519, HS256]
  leeway: 0s
  maxAge: 24h
  types: [AT+jwt, application/jwt]
- name: least
  issuer: https://b.example
  jwks: {file: /keys.json}
  audience: any
  userPrefix: "least|"
`), "/etc/streamcount")
	require.NoError(t, err)
	require.Len(t, entries, 2)
	all := entries[0]
	assert.Equal(t, keysConfig{url: "http://keys.svc:8080/keys", plainHTTP: true}, all.keys)
	assert.Equal(t, "/etc/streamcount/legacy.secret", all.secretFile)
	assert.Equal(t, []audienceRule{{claimPath{"aud"}, []string{"streams", "42"}}, {claimPath{"azp"}, []string{"console"}}}, all.audience)
	assert.Len(t, all.require, 3)
	assert.Equal(t, claimPath{"ext", "id"}, all.user)
	assert.Equal(t, claimPath{"https://acme.example/plan"}, all.plan)
	assert.Equal(t, []labelClaim{{"member", claimPath{"app_metadata", "member"}}, {"tier", claimPath{"https://acme.example/tier"}}}, all.labels)
	assert.Equal(t, claimPath{"profile"}, all.profile)
	assert.Equal(t, claimPath{"app_metadata", "priority"}, all.priority)
	assert.Equal(t, []string{"PS256", "EdDSA", "HS256"}, all.algorithms)
	assert.Equal(t, []string{"at+jwt", "jwt"}, all.types)
	assert.Equal(t, time.Duration(0), all.leeway)
	assert.Equal(t, 24*time.Hour, all.maxAge)
	least := entries[1]
	assert.Equal(t, "/keys.json", least.keys.file)
	assert.True(t, least.anyAudience)
	assert.Equal(t, claimPath{"sub"}, least.user)
	assert.Equal(t, defaultLeeway, least.leeway)
}

// An auth file is rejected or accepted as a whole, and an accepted one is complete.
func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(oneIssuer("")))
	f.Add([]byte(oneIssuer(`, secretFile: s, user: [a, b], require: {a: [1, true, x]}, types: [jwt], maxAge: 1h`)))
	f.Add([]byte(oneIssuer(`, labels: {tier: t, member: [a, m]}, profile: p, priority: [a, b]`)))
	f.Add([]byte("issuers: &a [*a]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, err := readAuthFile(content, "/")
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		for _, e := range entries {
			require.NotEmpty(t, e.name)
			require.NotEmpty(t, e.issuers)
			require.True(t, e.anyAudience || len(e.audience) > 0)
			require.NotEmpty(t, e.user)
			require.NoError(t, checkLabelClaims(e.labels))
			require.True(t, e.keys != keysConfig{} || e.secretFile != "")
			require.False(t, e.allows("none"))
		}
	})
}

// Required claims may be lists, numbers, and scopes in one string.
func TestRequire(t *testing.T) {
	entries, err := readAuthFile([]byte(oneIssuer(", require: {scope: [watch], roles: [viewer, admin], level: [1, 2], ok: true}")), "/")
	require.NoError(t, err)
	good := members{"scope": "openid watch", "roles": []any{"x", "viewer"}, "level": jsonNumber("2"), "ok": true}
	require.NoError(t, entries[0].checkRequired(good))
	require.NoError(t, entries[0].checkRequired(with(good, members{"scope": []any{"watch"}})), "some write a list")
	for name, change := range map[string]members{
		"scope": {"scope": "openid watching"}, "roles": {"roles": "view"}, "level": {"level": "2"}, "ok": {"ok": "true"},
		"no_roles": {"roles": nil}, "object": {"roles": map[string]any{"viewer": true}}, "lists": {"roles": []any{[]any{"viewer"}}},
		"number": {"level": jsonNumber("2.0")},
	} {
		require.ErrorIs(t, entries[0].checkRequired(with(good, change)), ErrCredential, name)
	}
}
