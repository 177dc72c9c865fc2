package ingress

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
)

// readProxyHeader reads the header of the PROXY protocol, version 1 or 2, that a connection
// of a proxy may begin with, and uses the client's address in it. Without a header, or with
// one that names no client, the client is the proxy. It reports false if the header is
// malformed or late.
func (t *trackedConn) readProxyHeader() bool {
	proxy := PeerAddr(t.RemoteAddr().String())
	_ = t.SetReadDeadline(time.Now().Add(handshakeTimeout)) // on an error the read fails too
	in := bufio.NewReaderSize(t.Conn, 512)
	header, err := proxyHeader(in)
	if err != nil {
		t.conns.record(closedProxyHeader, proxy)
		return false
	}
	_ = t.SetReadDeadline(time.Time{})
	rest, _ := in.Peek(in.Buffered()) // buffered bytes can be peeked
	t.unread = bytes.Clone(rest)
	if header == nil || header.Command.IsLocal() {
		return true
	}
	client, ok := header.SourceAddr.(*net.TCPAddr)
	if !ok { // a Unix socket or UDP
		return true
	}
	t.clientAddr = client
	t.conns.remove(&t.entry)
	return t.register(PeerAddr(client.String()))
}

// maxProxyLine is the maximum length of a header of version 1.
const maxProxyLine = 107

// proxyHeader returns the PROXY header at the beginning of in; nil if there is none.
func proxyHeader(in *bufio.Reader) (*proxyproto.Header, error) {
	first, err := in.Peek(1)
	if err == nil && first[0] == 'P' { // or POST, or PUT
		if first, err = in.Peek(len("PROXY")); err == nil && string(first) == "PROXY" {
			// The library requires that the whole line is buffered.
			for n := len(first) + 1; n <= maxProxyLine && first[len(first)-1] != '\n'; n++ {
				if first, err = in.Peek(n); err != nil {
					return nil, err
				}
			}
		}
	}
	header, err := proxyproto.Read(in)
	if errors.Is(err, proxyproto.ErrNoProxyProtocol) {
		return nil, nil
	}
	return header, err
}
