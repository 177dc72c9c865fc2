package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"
	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

// documents registers the two forms of the OpenAPI document and the pages that
// show it. All are made once: nothing in them changes.
func (s *Server) documents(r *mux.Router, doc *huma.OpenAPI) error {
	current, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	older, err := doc.Downgrade()
	if err != nil {
		return fmt.Errorf("write the OpenAPI 3.0 document: %w", err)
	}
	s.plain(r, "/openapi.json", document("application/json", current))
	s.plain(r, "/openapi-3.0.json", document("application/json", older))
	ui := v5emb.NewHandlerWithConfig(swgui.Config{
		Title: doc.Info.Title, SwaggerJSON: "/openapi.json", BasePath: "/docs/",
	})
	page := render(ui, "/docs")
	policy := docsPolicy(page)
	s.plain(r, "/docs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		document("text/html; charset=utf-8", page)(w, r)
	})
	s.plain(r, "/docs/{file:[A-Za-z0-9._-]+}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		ui.ServeHTTP(w, r)
	})
	return nil
}

// document serves fixed content.
func document(mediaType string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(content) // the client is gone: there is nobody to tell
	}
}

// A page is a ResponseWriter that keeps the body.
type page struct {
	bytes.Buffer
	header http.Header
}

// Header returns the headers, which nobody reads.
func (p *page) Header() http.Header { return p.header }

// WriteHeader does nothing.
func (p *page) WriteHeader(int) {}

func render(h http.Handler, path string) []byte {
	p := &page{header: http.Header{}}
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

// problemPage explains a kind of problem to whoever follows its type.
func (s *Server) problemPage(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["name"]
	for _, k := range allKinds() {
		if k.name == name {
			text(w, http.StatusOK, fmt.Sprintf("%s (status %d)\n\n%s\n", k.title, k.status, k.help))
			return
		}
	}
	s.notFound(w, r)
}

// favicon says that there is none, so that no browser logs an error.
func (s *Server) favicon(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=86400")
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) root(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "/docs")
	w.WriteHeader(http.StatusFound)
}
