// Package ingress accepts connections and checks requests before they reach a handler: it
// limits connections and arriving bodies, reads PROXY headers, establishes TLS, detects
// requests of ambiguous length, and checks hosts, origins and forwarded addresses. What it
// rejects it returns as a typed reason; package api makes the responses.
package ingress

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Config configures an Ingress. Its zero value trusts no proxy, lets no page of another
// origin call, and accepts every host.
type Config struct {
	// TLS is the configuration of all connections; nil means plain HTTP/1.1. HTTP/2
	// requires TLS.
	TLS *tls.Config
	// CertificateExpires returns when the current certificate expires; nil if there is
	// none.
	CertificateExpires func() time.Time
	// Origins are the origins whose pages may call: see [CheckOrigin]. NullOrigin allows
	// the origin null, which every page can give itself.
	Origins    []string
	NullOrigin bool
	// CORSHeaders are request headers that those pages may send in addition to those of
	// the calls and of tracing tools; "*" allows all.
	CORSHeaders []string
	// Hosts are the names and addresses that requests may be for: see [CheckHost].
	// LocalHosts also allows localhost and loopback addresses, IPHosts allows localhost
	// and all IP addresses. Without any of the three, all hosts are allowed.
	Hosts               []string
	LocalHosts, IPHosts bool
	// NoProxies rejects requests that came through a proxy.
	NoProxies bool
	// HSTS makes browsers use HTTPS for this host for a year.
	HSTS bool
	// Proxies are the trusted proxies: their X-Forwarded-For names the client.
	Proxies []netip.Prefix
	// ProxyProtocol allows connections of trusted proxies to begin with a header of the
	// PROXY protocol, version 1 or 2, that names the client.
	ProxyProtocol bool
	// BodyTimeout is the timeout of the first MaxSmallBody bytes of a body; default
	// [DefaultBodyTimeout].
	BodyTimeout time.Duration
	// MaxConnections and MaxConnectionsPerAddress limit the open connections, in all and
	// of one IPv4 address or IPv6 /64.
	MaxConnections, MaxConnectionsPerAddress int

	Log *slog.Logger // nil means slog.Default()
}

// An Ingress checks the connections and requests of a server. It is safe for concurrent
// use.
type Ingress struct {
	config      Config
	log         *slog.Logger
	origins     origins
	hosts       hosts
	crossOrigin *http.CrossOriginProtection
	connections *connections
	bodies      bodies
	responses   responses
	logHop      sync.Once // for the first invalid hop

	logUntrusted sync.Once // for the first client behind an untrusted proxy
}

// New returns an Ingress.
func New(c Config) (*Ingress, error) {
	i := &Ingress{config: c, log: cmp.Or(c.Log, slog.Default()), crossOrigin: http.NewCrossOriginProtection()}
	var badOrigin, badHost error
	i.origins, badOrigin = newOrigins(c)
	i.hosts, badHost = newHosts(c)
	if err := cmp.Or(badOrigin, badHost); err != nil {
		return nil, err
	}
	i.bodies.init(cmp.Or(c.BodyTimeout, DefaultBodyTimeout), i.Exempt)
	i.connections = newConnections(i.log, c.MaxConnections, c.MaxConnectionsPerAddress, i.Exempt)
	return i, nil
}

// Listen returns a listener that accepts connections of ln within the limits, after their
// PROXY headers and TLS handshakes. A server that uses it needs [Ingress.ConnContext].
func (i *Ingress) Listen(ln net.Listener) net.Listener {
	ln = connListener{ln, i.connections}
	var proxy func(netip.Addr) bool
	if i.config.ProxyProtocol {
		proxy = i.IsProxy
	}
	if i.config.TLS != nil || proxy != nil {
		return newHandshakeListener(ln, i.config.TLS, proxy)
	}
	return framingListener{ln}
}

// Connections returns the number of open connections.
func (i *Ingress) Connections() int { return i.connections.len() }

// ClosedConnections returns how many connections were closed, by reason.
func (i *Ingress) ClosedConnections() map[string]int64 {
	out := make(map[string]int64, numCloseReasons)
	for reason := range numCloseReasons {
		out[reason.String()] = i.connections.closed[reason].Load()
	}
	return out
}

// ArrivingBodies returns the number of request bodies that are arriving.
func (i *Ingress) ArrivingBodies() int { return i.bodies.arriving.len() }

// A Refusal is the reason why a request is rejected before routing.
type Refusal int

// The refusals. Accepted means that there is none.
const (
	Accepted        Refusal = iota
	AmbiguousLength         // the request gives its length in two ways, or has folded header lines
	PlainHTTP2              // HTTP/2 without TLS
	TooManyHeaders
	TargetTooLong
	WrongHost    // the request is for another host
	ThroughProxy // the request came through a proxy, and Config.NoProxies is set
)

const (
	// MaxHeaders is the maximum number of headers of a request.
	MaxHeaders = 100
	// MaxTarget is the maximum length of the path and query, in bytes. The longest valid
	// one has about 600.
	MaxTarget = 2 << 10
)

// CheckFraming checks that r is delimited clearly. It must be called exactly once for each
// request; [CheckRequest] calls it.
func CheckFraming(r *http.Request) Refusal {
	switch {
	case ambiguousLength(r):
		return AmbiguousLength
	case r.ProtoMajor > 1 && r.Method == "PRI":
		return PlainHTTP2
	}
	return Accepted
}

// CheckRequest checks the request line and the headers. It must be called exactly once for
// each request.
func CheckRequest(r *http.Request) Refusal {
	if refusal := CheckFraming(r); refusal != Accepted {
		return refusal
	}
	headers := 0
	for _, values := range r.Header {
		headers += len(values)
	}
	switch {
	case headers > MaxHeaders:
		return TooManyHeaders
	case len(r.RequestURI) > MaxTarget:
		return TargetTooLong
	}
	return Accepted
}

// CrossSite reports whether r comes from a page of an origin that may not call, and would
// change something.
func (i *Ingress) CrossSite(r *http.Request) bool {
	return !i.origins.allow(r.Header.Get("Origin")) && i.crossOrigin.Check(r) != nil
}

// IsProxy reports whether a is the address of a trusted proxy.
func (i *Ingress) IsProxy(a netip.Addr) bool {
	return slices.ContainsFunc(i.config.Proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Exempt reports whether many clients may have the address a, so that the limits of one
// client do not apply: trusted proxies, and this machine, where a proxy may run that is not
// configured. A client of a Unix socket has the zero Addr.
func (i *Ingress) Exempt(a netip.Addr) bool { return !a.IsValid() || a.IsLoopback() || i.IsProxy(a) }

// PeerAddr returns the address of a connection's peer, without its port; the zero Addr if
// it has none.
func PeerAddr(remote string) netip.Addr {
	peer, _ := netip.ParseAddrPort(remote) // zero if it is invalid
	return peer.Addr().Unmap().WithZone("")
}

// Network returns the network that a client at a is counted under: a client with one
// address of an IPv6 /64 usually has all of them. It is the zero Prefix for the zero Addr.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // an error only for the zero Addr
	return p
}
