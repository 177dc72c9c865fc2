// Package docspage renders the page of the documentation once, because nothing in it changes.
package docspage

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Render returns the page that h serves at path, and its Content-Security-Policy.
func Render(h http.Handler, path string) (page []byte, policy string) {
	page = render(h, path)
	return page, docsPolicy(page)
}

// A bufferedResponse is a ResponseWriter that stores the body.
type bufferedResponse struct {
	bytes.Buffer
	header http.Header
}

// Header returns the headers, which are not used.
func (p *bufferedResponse) Header() http.Header { return p.header }

// WriteHeader does nothing.
func (p *bufferedResponse) WriteHeader(int) {}

func render(h http.Handler, path string) []byte {
	p := &bufferedResponse{header: http.Header{}}
	h.ServeHTTP(p, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Header: http.Header{}})
	return p.Bytes()
}

var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// docsPolicy lets the documentation page run its own scripts and nothing else,
// and talk to no other host.
func docsPolicy(page []byte) string {
	scripts := "'self'"
	for _, m := range inlineScript.FindAllSubmatch(page, -1) {
		sum := sha256.Sum256(m[1])
		scripts += " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return strings.Join([]string{
		"default-src 'none'", "script-src " + scripts, "style-src 'self' 'unsafe-inline'",
		"img-src 'self' data:", "font-src 'self'", "connect-src 'self'",
		"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
	}, "; ")
}
