package ingress

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/publicsuffix"
)

// origins are the origins whose pages may call.
type origins struct {
	exact     []string
	wildcards []originWildcard
	headers   []string // that those pages may send in addition
	anyHeader bool     // they may send all headers
	allowNull bool
}

// An originWildcard matches the origins of the names below a domain.
type originWildcard struct{ prefix, suffix string } // "https://" and ".preview.example:8443"

func newOrigins(c Config) (origins, error) {
	o := origins{allowNull: c.NullOrigin}
	for _, text := range c.Origins {
		if err := CheckOrigin(text); err != nil {
			return o, err
		}
		if before, after, ok := strings.Cut(text, "*"); ok {
			o.wildcards = append(o.wildcards, originWildcard{before, after})
			continue
		}
		o.exact = append(o.exact, text)
	}
	for _, name := range c.CORSHeaders {
		if err := CheckCORSHeader(name); err != nil {
			return o, err
		}
		if name == "*" {
			o.anyHeader = true
		}
		o.headers = append(o.headers, strings.ToLower(name))
	}
	return o, nil
}

func (o *origins) empty() bool { return len(o.exact)+len(o.wildcards) == 0 && !o.allowNull }

// allow reports whether pages of an origin may call.
func (o *origins) allow(origin string) bool {
	if origin == "null" {
		return o.allowNull
	}
	return slices.Contains(o.exact, origin) || slices.ContainsFunc(o.wildcards, func(w originWildcard) bool {
		label, ok := strings.CutPrefix(origin, w.prefix)
		label, below := strings.CutSuffix(label, w.suffix)
		return ok && below && labels.MatchString(label)
	})
}

var (
	labels           = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
	webHost          = regexp.MustCompile(`^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[1-9][0-9]*)?$`)
	schemeName       = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)
	originHost       = regexp.MustCompile(`^[A-Za-z0-9._~:\[\]-]*$`)
	headerName       = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	forbiddenSchemes = []string{"about", "blob", "data", "ftp", "javascript", "mailto", "ws", "wss"}
)

// CheckOrigin returns an error unless origin is an origin as browsers send it, or one with a
// wildcard for the names below a domain.
func CheckOrigin(origin string) error {
	scheme, host, ok := strings.Cut(origin, "://")
	switch {
	case origin == "null":
		return errors.New("the origin null is that of every sandboxed page and of some packaged apps: to allow it set " +
			"cors-allow-null")
	case !ok || !schemeName.MatchString(scheme) || slices.Contains(forbiddenSchemes, scheme):
	case scheme == "http" || scheme == "https":
		return checkWebOrigin(scheme, host)
	case originHost.MatchString(host) && (host != "" || scheme == "file"):
		return nil
	}
	return errWantOrigin
}

var errWantOrigin = errors.New("want an origin as browsers send it, such as https://app.example, http://localhost:8080 " +
	"or capacitor://localhost, or https://*.app.example for the names below a domain")

// isIPv6 reports whether a host is an IPv6 address as browsers write it.
func isIPv6(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Is6() && a.String() == host
}

func checkWebOrigin(scheme, host string) error {
	host, wild := strings.CutPrefix(host, "*.")
	u, err := url.Parse(scheme + "://" + host)
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return errors.New("browsers send such a name in ASCII, as in https://xn--bcher-kva.example: write it so")
	}
	if err != nil || !webHost.MatchString(host) || !labels.MatchString(u.Hostname()) && !isIPv6(u.Hostname()) {
		return errWantOrigin
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || port == 0) {
		return errWantOrigin
	}
	if scheme == "https" && u.Port() == "443" || scheme == "http" && u.Port() == "80" {
		return errors.New("browsers leave out the port " + u.Port() + " of " + scheme + ": remove it")
	}
	if suffix, _ := publicsuffix.PublicSuffix(u.Hostname()); wild && suffix == u.Hostname() && suffix != "localhost" {
		return errors.New("other parties can have names below " + u.Hostname() + ": name your own origins")
	}
	return nil
}

// CheckCORSHeader returns an error unless name is the name of a header, or * for all.
func CheckCORSHeader(name string) error {
	if !headerName.MatchString(name) || strings.Contains(name, "*") && name != "*" {
		return errors.New("want names of headers, such as X-App-Version, or * for all")
	}
	return nil
}

// pageHeaders are the headers that a page of an allowed origin may send: what the
// calls need, and what tools for tracing and monitoring add to each call of a page.
// A page that sends another header cannot call at all, so its streams are not counted. Not
// all headers are allowed, because a proxy in front of the service may act on some, such as
// X-Forwarded-For or the name of an authenticated user.
var pageHeaders = []string{
	"Authorization", "Content-Type", "Last-Event-ID", "Accept", "Accept-Language", "Content-Language", "Cache-Control", "Pragma",
	"X-Requested-With", "X-Request-ID", "X-Correlation-ID",
	"traceparent", "tracestate", "baggage", "b3", "sentry-trace", "uber-trace-id", "newrelic", "Request-Id",
	"Request-Context", "Correlation-Context", "X-Cloud-Trace-Context", "grpc-trace-bin", "X-Amzn-Trace-Id",
	"elastic-apm-traceparent", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
	"x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-origin", "x-datadog-sampling-priority", "x-datadog-tags",
	"x-datadog-sampled", "ADRUM", "ADRUM_0", "ADRUM_1", "sw8", "sw8-correlation", "sw8-x",
}

// pageHeaderPrefixes are the prefixes of header names of which such tools have many.
var pageHeaderPrefixes = []string{
	"x-b3-", "x-datadog-", "sentry-", "elastic-apm-", "x-elastic-", "uberctx-", "ot-tracer-", "ot-baggage-", "x-ot-", "x-instana-",
	"x-newrelic-", "newrelic-", "x-dynatrace", "x-dt", "x-amzn-trace", "x-cloud-trace", "x-honeycomb-", "x-posthog-", "x-faro-",
	"x-lightstep-", "x-splunk-", "x-highlight-", "x-openreplay-", "x-logrocket-", "x-client-trace", "adrum", "sw8",
}

// allowedHeaders returns the value of Access-Control-Allow-Headers for the requested headers.
func (o *origins) allowedHeaders(asked []string) string {
	allowed := slices.Concat(pageHeaders, o.headers)
	allowed = slices.DeleteFunc(allowed, func(name string) bool { return name == "*" })
	for name := range strings.SplitSeq(strings.Join(asked, ","), ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		family := slices.ContainsFunc(pageHeaderPrefixes, func(f string) bool { return strings.HasPrefix(name, f) })
		known := slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, name) })
		if (o.anyHeader || family) && !known && headerName.MatchString(name) && len(allowed) < 2*MaxHeaders {
			allowed = append(allowed, name)
		}
	}
	return strings.Join(allowed, ", ")
}

// exposedHeaders are the response headers that a page may read.
const exposedHeaders = "Retry-After, Allow, Date, WWW-Authenticate, traceparent, traceresponse, Server-Timing"

// SetCORSHeaders sets the headers of the response that pages of other origins need, also of
// an error, and reports whether r was a preflight request that is now answered.
func (i *Ingress) SetCORSHeaders(w http.ResponseWriter, r *http.Request) (answered bool) {
	o := &i.origins
	if o.empty() {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !o.allow(origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", exposedHeaders)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE")
	h.Set("Access-Control-Allow-Headers", o.allowedHeaders(r.Header.Values("Access-Control-Request-Headers")))
	h.Set("Access-Control-Max-Age", "7200")
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}
