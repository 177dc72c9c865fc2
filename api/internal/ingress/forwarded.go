package ingress

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ClientOf returns the client's address. It is the peer of the connection; if that is a
// trusted proxy, it is the last address in X-Forwarded-For that is not a trusted proxy. An
// entry that is not an address ends the search: then invalidHop is the entry, and client is
// the proxy that wrote it. Entries before it may have been written by the client.
func (i *Ingress) ClientOf(r *http.Request) (client netip.Addr, invalidHop string) {
	client, invalidHop = i.clientOf(r)
	if invalidHop != "" {
		i.logHop.Do(func() {
			i.log.Warn("a trusted proxy sends an invalid client address in X-Forwarded-For: the text is used in place of the address",
				"proxy", client.String(), "hop", invalidHop)
		})
	}
	return client, invalidHop
}

func (i *Ingress) clientOf(r *http.Request) (client netip.Addr, invalidHop string) {
	at := PeerAddr(r.RemoteAddr)
	if !i.IsProxy(at) {
		return at, ""
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(hops) {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		next, ok := parseHop(text)
		if !ok {
			return at, text[:min(len(text), maxHop)]
		}
		at = next
		if !i.IsProxy(at) {
			return at, ""
		}
	}
	return at, ""
}

// KnowsClient reports whether client, as [Ingress.ClientOf] returned it for r, is one client
// and not a proxy: its address is not one that many clients may have, and headers of a proxy
// come from a trusted one.
func (i *Ingress) KnowsClient(r *http.Request, client netip.Addr) bool {
	if i.Exempt(client) {
		return false
	}
	if i.IsProxy(PeerAddr(r.RemoteAddr)) || !cameThroughProxy(r) {
		return true
	}
	i.logUntrusted.Do(func() {
		i.log.Warn("a viewer's start has headers of a proxy that is not trusted, so the network of its client is not known: "+
			"if it is your proxy, add it to trusted-proxies", "peer", client.String())
	})
	return false
}

// maxHop is the maximum length of an invalid hop, in bytes.
const maxHop = 64

// parseHop parses an address as proxies write it: alone, with a port, in brackets, in
// quotes, or with a zone.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(strings.Trim(text, `"`))
	if inner, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); ok && text[0] == '[' {
		a, err := netip.ParseAddr(inner)
		return a.Unmap().WithZone(""), err == nil && (rest == "" || isPortSuffix(rest))
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().WithZone(""), true
	}
	host, port, ok := strings.Cut(text, ":")
	a, err := netip.ParseAddr(host)
	return a, ok && err == nil && isPortSuffix(":"+port)
}

func isPortSuffix(text string) bool {
	_, err := netip.ParseAddrPort("0.0.0.0" + text)
	return err == nil
}
