package ingress

import (
	"fmt"
	"net/url"
	"strings"
)

// NormalizeEscapes escapes the bytes of a path that should have been. Where there are some,
// net/url ignores how the others were escaped: a%2Fb|c would have two segments.
func NormalizeEscapes(u *url.URL) {
	if u.RawPath == "" || u.EscapedPath() == u.RawPath {
		return
	}
	var out strings.Builder
	for _, c := range []byte(u.RawPath) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("%/-._~!$&'()*+,;=:@", c) >= 0:
			out.WriteByte(c)
		default:
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	u.RawPath = out.String()
}
