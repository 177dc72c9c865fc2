package api

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"streamcount/access"
)

// Edge is how the service meets the world. Its zero value trusts no proxy, lets
// pages of no other origin in, and limits no rate.
type Edge struct {
	// TLS is spoken on every connection; nil for none. HTTP/2 is spoken only
	// over it.
	TLS *tls.Config
	// CertificateExpires is when the certificate does that is shown now; nil if
	// there is none.
	CertificateExpires func() time.Time
	// Origins are those whose pages may call, as browsers send them:
	// https://host, with the port if it is not 443.
	Origins []string
	// Hosts are the names that requests may be for; with LocalHosts also those of
	// this machine. With neither, any.
	Hosts      []string
	LocalHosts bool
	// Proxies may say in X-Forwarded-For whose request they pass on.
	Proxies []netip.Prefix
	// Requests a second, with ten times as many at once; 0 for no bound. PerUser
	// is for the starts, stops and removals of one user; PerAddress for one client
	// address, or /64 network; PerKey for one API key.
	PerUser, PerAddress, PerKey float64
}

// edge is an Edge at work.
type edge struct {
	Edge
	crossOrigin                 *http.CrossOriginProtection
	perUser, perAddress, perKey *rates
	delayed                     chan struct{} // holds one for each refusal that waits
	delay                       time.Duration // of such a refusal
}

func newEdge(e Edge) (*edge, error) {
	out := &edge{
		Edge: e, crossOrigin: http.NewCrossOriginProtection(),
		perUser: newRates(e.PerUser), perAddress: newRates(e.PerAddress), perKey: newRates(e.PerKey),
		delayed: make(chan struct{}, maxDelayed), delay: refusalDelay,
	}
	for _, origin := range e.Origins {
		if err := CheckOrigin(origin); err != nil {
			return nil, err
		}
		if err := out.crossOrigin.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("api: origin %q: %w", origin, err)
		}
	}
	return out, nil
}

// CheckOrigin wants an origin as browsers send it.
func CheckOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.ContainsAny(origin, "*@") ||
		u.Scheme != "https" && u.Scheme != "http" || strings.ToLower(origin) != origin {
		return errors.New("want an origin as browsers send it, such as https://app.example or http://localhost:8080")
	}
	return nil
}

// meet looks at what a request says of itself before anything else does. It sets
// the headers of the answer that pages of other origins need, and reports whether
// the request has been answered.
func (e *edge) meet(w http.ResponseWriter, r *http.Request) (answered bool) {
	if !e.knows(r.Host) {
		misdirected.problem("The service is not known by that name.").write(w)
		return true
	}
	if len(e.Origins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(e.Origins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Retry-After")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// knows reports whether host is a name of this service. A page that has its own
// name lead to this machine would otherwise be of our origin.
func (e *edge) knows(host string) bool {
	if !e.LocalHosts && len(e.Hosts) == 0 || host == "" { // browsers always send one
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if slices.Contains(e.Hosts, host) {
		return true
	}
	ip := net.ParseIP(host)
	return e.LocalHosts && (host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback())
}

// forged refuses a page of another origin that makes its visitor's browser change
// something here. It matters where nobody has to say who he is: a credential, or
// a stream's id, is nothing that such a page has.
func (e *edge) forged(r *http.Request, c access.Caller, knowsID bool) *problem {
	if c.Kind != access.Anyone || knowsID {
		return nil
	}
	if e.crossOrigin.Check(r) != nil {
		return crossOrigin.problem("Pages of that origin may not call. An operator can allow it.")
	}
	return nil
}

// peerAt is the address at the other end of a connection, without its port; the zero
// Addr if it has none.
func peerAt(remote string) netip.Addr {
	peer, _ := netip.ParseAddrPort(remote) // zero if it is none
	return peer.Addr().Unmap().WithZone("")
}

// addressOf is the client's address: that of the connection, or, from proxies
// that are trusted, what the last of them that is not one saw.
func (e *edge) addressOf(r *http.Request) netip.Addr {
	at := peerAt(r.RemoteAddr)
	if !e.trusts(at) {
		return at
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return at
		}
		at = next.Unmap().WithZone("")
		if !e.trusts(at) {
			return at
		}
	}
	return at
}

func (e *edge) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(e.Proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// network is what requests of an address are counted under: whoever has one
// address of a /64 of IPv6 has them all.
func network(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
