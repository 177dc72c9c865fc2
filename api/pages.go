package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"
	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"

	"streamcount/api/internal/ingress"
	"streamcount/api/internal/problem"
)

// pagePath keeps a page out of the API, and from being taken for a pattern.
var pagePath = regexp.MustCompile(`^/([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)*)?$`)

// pages registers Config.Pages, and without one for "/" the way to the
// documentation.
func (s *Server) pages(r *mux.Router) error {
	for _, path := range slices.Sorted(maps.Keys(s.cfg.Pages)) {
		try, match := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}}, mux.RouteMatch{}
		if !pagePath.MatchString(path) || r.Match(try, &match) && match.MatchErr == nil {
			return fmt.Errorf("api: page %q: not a plain path, or one that is in use", path)
		}
		s.handlePage(r, path, func(w http.ResponseWriter, r *http.Request) {
			setOpenerPolicy(w, r)
			s.cfg.Pages[path].ServeHTTP(w, r)
		})
	}
	if s.cfg.Pages["/"] == nil && !s.cfg.NoDocs {
		s.handlePage(r, "/", s.root)
	}
	return nil
}

// setOpenerPolicy keeps pages of other origins, such as one that opened this page, away from
// its window. Browsers do so for pages over HTTPS and on the same machine only, and
// complain about the header elsewhere.
func setOpenerPolicy(w http.ResponseWriter, r *http.Request) {
	host := ingress.StripPort(r.Host)
	ip, _ := netip.ParseAddr(host) // the zero Addr is not loopback
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" || ip.IsLoopback() ||
		host == "localhost" || strings.HasSuffix(host, ".localhost") {
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
	}
}

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
	s.handlePage(r, "/openapi.json", document("application/json", current))
	s.handlePage(r, "/openapi-3.0.json", document("application/json", older))
	ui := v5emb.NewHandlerWithConfig(swgui.Config{
		Title: doc.Info.Title, SwaggerJSON: "/openapi.json", BasePath: "/docs/",
	})
	page := render(ui, "/docs")
	policy := docsPolicy(page)
	s.handlePage(r, "/docs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		setOpenerPolicy(w, r)
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		document("text/html; charset=utf-8", page)(w, r)
	})
	s.handlePage(r, "/docs/{file:[A-Za-z0-9._-]+}", func(w http.ResponseWriter, r *http.Request) {
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
		_, _ = w.Write(content) // an error means that the client has disconnected
	}
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

// problemPage serves the description of a type of problem at the URL in its type.
func (s *Server) problemPage(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["name"]
	for _, k := range problem.Types() {
		if k.Name == name {
			text(w, http.StatusOK, fmt.Sprintf("%s (status %d)\n\n%s\n", k.Title, k.Status, k.Help))
			return
		}
	}
	s.notFound(w, r)
}

// favicon answers that there is no icon, so that browsers log no error.
func (s *Server) favicon(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=86400")
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) root(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "/docs")
	w.WriteHeader(http.StatusFound)
}

// healthz says that the process runs, whatever etcd does.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	text(w, http.StatusOK, "ok\n")
}

// readyz says whether this node should be sent requests, and if not, why.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if err := s.notReady(r.Context()); err != nil {
		w.Header().Set("Retry-After", retryAfterJittered())
		text(w, http.StatusServiceUnavailable, fmt.Sprintf("not ready: %v\n", err))
		return
	}
	text(w, http.StatusOK, "ready\n")
}

var errDraining = errors.New("the node is draining: it is about to stop")

// notReady asks etcd now, once for all who ask at the same time: health checks
// must not become load on an etcd that is already slow.
func (s *Server) notReady(ctx context.Context) error {
	if s.draining.Load() {
		return errDraining
	}
	answer := s.ready.DoChan("", func() (any, error) {
		// The check must not end with the first of the requests that share it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RequestTimeout)
		defer cancel()
		return nil, askReady(ctx, s.backend.Load().Ready)
	})
	select {
	case <-ctx.Done():
		return fmt.Errorf("the request ended first: %w", context.Cause(ctx))
	case a := <-answer:
		return a.Err
	}
}

// askReady converts a panic to an error, because singleflight would exit the process.
func askReady(ctx context.Context, ready func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the readiness check panicked: %v", v)
		}
	}()
	return ready(ctx)
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // an error means that the client has disconnected
}
