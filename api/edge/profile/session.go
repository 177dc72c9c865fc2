package profile

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strings"
)

// baseSession returns the session by the sources of the profile, before the network, the agent
// and the content are mixed in. It is the session in the own cookie, so that requests with the
// token and requests with the cookie have the same session.
func (p *Profile) baseSession(l login, r Request, t Target, key []byte) (string, error) {
	if l.cookie != nil {
		return l.cookie.Session, nil
	}
	for _, s := range p.sessions {
		var value string
		switch s.place {
		case inDerive:
			return p.derive(l, r, key), nil
		case inClaim:
			value = l.token.Text(s.name)
		default:
			var n int
			if value, n = s.find(r, t); n > 1 {
				return "", reject(BadIdentity, "the request has two values of %s", s)
			}
		}
		if value != "" {
			return bounded(value), nil
		}
	}
	var names []string
	for _, s := range p.sessions {
		names = append(names, s.String())
	}
	return "", reject(BadIdentity, "the request has no session: want one of %s", strings.Join(names, ", "))
}

// derive computes a session, so that all nodes have the same one for the same player.
func (p *Profile) derive(l login, r Request, key []byte) string {
	credential := sha256.Sum256([]byte(l.credential))
	agent := ""
	if p.deriveAgent {
		agent = first(r.Header, "User-Agent")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("edge\x00" + p.Name + "\x00" + l.caller.Name + "\x00"))
	mac.Write(credential[:])
	mac.Write([]byte("\x00" + agent))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}

// session returns the session of a request.
func (p *Profile) session(base string, r Request, t Target) string {
	split := p.Change == Split && t.Content != ""
	if !p.bindAgent && !p.bindNetwork && !split {
		return base
	}
	var agent, network, content string
	if p.bindAgent {
		agent = first(r.Header, "User-Agent")
	}
	if p.bindNetwork {
		network = networkOf(r.Client)
	}
	if split {
		content = t.Content
	}
	return hashOf(base, agent, network, content)
}

// networkOf returns the /24 or /64 network of an address; "" if it is not an address.
func networkOf(client string) string {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(client, "["), "]"))
	if err != nil {
		with, err := netip.ParseAddrPort(client)
		if err != nil {
			return ""
		}
		addr = with.Addr()
	}
	addr = addr.Unmap().WithZone("")
	bits := 24
	if addr.Is6() {
		bits = 64
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return network.String()
}

// hashOf returns 43 characters that differ for different texts.
func hashOf(texts ...string) string {
	var in []byte
	for _, text := range texts {
		in = append(binary.AppendUvarint(in, uint64(len(text))), text...)
	}
	sum := sha256.Sum256(in)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
