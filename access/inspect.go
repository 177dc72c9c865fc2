package access

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A KeyReport describes a key of an issuer, and whether tokens are checked with it.
type KeyReport struct {
	KID        string   `json:"kid"`
	Kind       string   `json:"kind"`
	Algorithms []string `json:"algorithms"`
	Used       bool     `json:"used"`
	Reason     string   `json:"reason,omitempty"` // why it is not used
}

// An IssuerReport lists the current keys of an issuer.
type IssuerReport struct {
	Name  string      `json:"name"`
	From  string      `json:"from"`
	Keys  []KeyReport `json:"keys"`
	Error string      `json:"error,omitempty"`
}

// CheckKeys reads or fetches the keys of each issuer of viewers' tokens.
func (a *Authenticator) CheckKeys(ctx context.Context) []IssuerReport {
	if a.viewers == nil {
		return nil
	}
	var out []IssuerReport
	for _, p := range a.viewers.issuers.Load().list {
		out = append(out, p.checkKeys(ctx))
	}
	return out
}

func (p *provider) checkKeys(ctx context.Context) IssuerReport {
	r := IssuerReport{Name: p.name, From: p.origin(), Keys: []KeyReport{}}
	var set *keyset
	var err error
	switch source := p.keys.(type) {
	case *fetcher:
		if set, _, err = source.fetch(ctx, nil); err == nil {
			source.set.Store(set)
		}
		source.pending.Store(0) // there is no other fetch to wait for
	case *keyFile:
		set = source.current()
	}
	if err != nil {
		r.Error = err.Error()
	}
	if set != nil {
		r.Keys = append(r.Keys, p.reportKeys(set)...)
	}
	if p.secret != nil {
		r.Keys = append(r.Keys, KeyReport{KID: "", Kind: "secret", Algorithms: []string{secretAlgorithm}, Used: true})
	}
	if r.Error == "" && !slices.ContainsFunc(r.Keys, func(k KeyReport) bool { return k.Used }) {
		r.Error = "no key can be used"
	}
	return r
}

func (p *provider) reportKeys(set *keyset) (out []KeyReport) {
	for _, k := range set.keys {
		report := KeyReport{KID: k.kid, Kind: k.kind, Algorithms: []string{}}
		if k.anyKid {
			report.KID = "(any)"
		}
		for _, alg := range algorithmsOf[k.kind] {
			if k.can(alg, p.algorithms) && p.allows(alg) {
				report.Algorithms = append(report.Algorithms, alg)
			}
		}
		if report.Used = len(report.Algorithms) > 0; !report.Used {
			report.Reason = fmt.Sprintf("its algorithm (%s) is not among algorithms", algorithmOf(k))
		}
		out = append(out, report)
	}
	for _, k := range set.unused {
		out = append(out, KeyReport{KID: short(k.kid), Kind: short(k.kind), Algorithms: []string{}, Reason: k.reason})
	}
	return out
}

func algorithmOf(k publicKey) string {
	if k.alg != "" {
		return k.alg
	}
	return algorithmsOf[k.kind][0]
}

// origin is the source of the keys, without a query, which may contain a secret.
func (p *provider) origin() string {
	from := p.providerConfig.keys
	switch {
	case from.file != "":
		return from.file
	case from.url == "":
		return p.secretFile
	}
	u, err := url.Parse(from.url)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// A TokenCheck is one check of a token, and its outcome.
type TokenCheck struct {
	Name    string `json:"check"`
	OK      bool   `json:"ok"`
	Outcome string `json:"outcome"`
}

// CheckToken makes every check of a viewer's token, where possible also after a failed one.
// Call [Authenticator.CheckKeys] before it.
func (a *Authenticator) CheckToken(ctx context.Context, token string) []TokenCheck {
	var out []TokenCheck
	check := func(name string, err error, good string) bool {
		outcome := good
		if err != nil {
			outcome = strings.TrimPrefix(err.Error(), ErrCredential.Error()+": ")
		}
		out = append(out, TokenCheck{name, err == nil, outcome})
		return err == nil
	}
	if a.viewers == nil {
		check("configuration", reject(ReasonHeader, "viewers' tokens are not configured"), "")
		return out
	}
	claims := jwt.MapClaims{}
	t, _, err := a.viewers.parser.ParseUnverified(token, claims)
	switch {
	case isKey(token):
		err = reject(ReasonHeader, "it is an API key, not a viewer's token")
	case len(token) > maxToken:
		err = reject(ReasonHeader, "it is longer than %d bytes", maxToken)
	case err != nil:
		err = tokenError(token, err, false)
	}
	if !check("form", err, "a signed JWT") {
		return out
	}
	p, err := a.viewers.issuers.Load().providerOf(claims)
	if err != nil {
		check("issuer", err, "")
		return out
	}
	check("issuer", nil, "that of "+p.name)
	check("header", p.checkHeader(t.Header), "ok")
	_, version, err := p.keysFor(ctx, t)
	if check("key", err, "found, for "+t.Method.Alg()) {
		_, err = a.viewers.parser.Parse(token, func(t *jwt.Token) (any, error) {
			keys, _, err := p.keysFor(ctx, t)
			return keys, err
		})
		if err != nil {
			err = tokenError(token, err, version != nil)
		}
		check("signature", err, "ok")
	}
	expires, err := p.checkTimes(claims, time.Now())
	check("times", err, "good until "+expires.UTC().Format(time.RFC3339))
	check("audience", p.checkAudience(claims), "ok")
	check("required claims", p.checkRequired(claims), "ok")
	caller, err := p.callerOf(claims)
	good := fmt.Sprintf("%q", caller.Name)
	if caller.Plan != "" {
		good += fmt.Sprintf(", plan %q", caller.Plan)
	}
	if caller.Limit != nil {
		good += fmt.Sprintf(", limit %d", *caller.Limit)
	}
	check("user", err, good+caller.Attributes.describe())
	return out
}

// describe lists the attributes, each after a comma.
func (as *Attributes) describe() string {
	var out strings.Builder
	if as.Profile != "" {
		fmt.Fprintf(&out, ", profile %q", as.Profile)
	}
	for _, key := range slices.Sorted(maps.Keys(as.Labels)) {
		fmt.Fprintf(&out, ", label %s=%q", key, as.Labels[key])
	}
	if as.Priority != nil {
		fmt.Fprintf(&out, ", priority %d", *as.Priority)
	}
	return out.String()
}
