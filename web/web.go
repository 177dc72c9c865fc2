// Package web holds the files for browsers: the console at /, the demo player at /demo,
// and the client for players, /streamcount.js. They are embedded in the binary and load
// nothing from other hosts.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed console demo *.js *.svg
var files embed.FS

// policy allows a page to use files of the same origin only: no inline script or style, no
// other host, and no frame around the page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; " +
	"connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'"

// mediaTypes maps extensions to media types. The table of package mime depends on the
// machine.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".png":  "image/png",
}

// Pages returns a handler for each path. A file is served at its own path, except
// console/index.html at / and demo/index.html at /demo. The handlers are for GET and HEAD.
func Pages() map[string]http.Handler {
	pages := map[string]http.Handler{}
	// Reading embedded files cannot fail.
	_ = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := files.ReadFile(name)
		if mediaType, known := mediaTypes[path.Ext(name)]; known && err == nil {
			pages[address(name)] = newPage(name, mediaType, content)
		}
		return err
	})
	return pages
}

// address returns the path at which a file is served.
func address(name string) string {
	switch {
	case name == "console/index.html":
		return "/"
	case path.Base(name) == "index.html":
		return "/" + path.Dir(name)
	}
	return "/" + name
}

// A page is one file.
type page struct {
	mediaType, tag string
	content        []byte
	library        bool // may be loaded by pages of other origins
}

func newPage(name, mediaType string, content []byte) *page {
	sum := sha256.Sum256(content)
	return &page{
		mediaType: mediaType, content: content, library: strings.HasPrefix(name, "streamcount"),
		tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
	}
}

// ServeHTTP answers with the file, or with 304 if the client has it. Browsers revalidate
// each file, so that a page and its scripts always have the same version.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	if p.library {
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	} else {
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
	}
	h.Set("ETag", p.tag)
	if matches(r.Header.Get("If-None-Match"), p.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", p.mediaType)
	h.Set("Content-Length", fmt.Sprint(len(p.content)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(p.content) // an error means that the client has disconnected
	}
}

// matches compares tags weakly, as RFC 9110 requires for If-None-Match: a proxy that
// compresses changes "x" to W/"x".
func matches(header, tag string) bool {
	for given := range strings.SplitSeq(header, ",") {
		given = strings.TrimPrefix(strings.TrimSpace(given), "W/")
		if given == tag || given == "*" {
			return true
		}
	}
	return false
}
