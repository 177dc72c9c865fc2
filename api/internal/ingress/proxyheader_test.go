package ingress

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzProxyHeader(f *testing.F) {
	f.Add("PROXY TCP4 203.0.113.9 10.0.0.1 51008 3000\r\nGET / HTTP/1.1\r\n")
	f.Add("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
	f.Add("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x01\x02\x03\x04\x00\x01\x00\x02")
	f.Fuzz(func(t *testing.T, in string) {
		header, err := proxyHeader(bufio.NewReaderSize(strings.NewReader(in), 512))
		if err == nil && header != nil && !header.Command.IsLocal() {
			require.NotNil(t, header.SourceAddr)
			_ = header.SourceAddr.String()
		}
	})
}
