package api

import (
	"encoding/json"
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

	"streamcount/access"
	"streamcount/api/internal/docspage"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/problem"
	"streamcount/api/internal/readiness"
	"streamcount/lease/rules"
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
	page, policy := docspage.Render(ui, "/docs")
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

// readyz answers whether this node should be sent requests, and if not, why. A node that is
// ready may still have rules that are not applied completely, which the answer names.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if err := s.ready.Err(r.Context()); err != nil {
		w.Header().Set("Retry-After", problem.RetryAfterJittered())
		text(w, http.StatusServiceUnavailable, fmt.Sprintf("not ready: %v\n", err))
		return
	}
	body := "ready\n"
	if c := s.compatibility(); len(c.Plans)+len(c.Users)+len(c.Older) > 0 {
		body += readiness.Notes(c, s.mayReadNames(w.(*recorder), r)) // observe is outermost: see New
	}
	text(w, http.StatusOK, body)
}

func (s *Server) compatibility() rules.Compatibility {
	if read := s.backend.Load().Compatibility; read != nil {
		return read()
	}
	return rules.Compatibility{}
}

// mayReadNames reports whether the names of users may be in the answer to a request that
// requires neither a credential nor a host.
func (s *Server) mayReadNames(rec *recorder, r *http.Request) bool {
	if s.cfg.Access != nil && r.Header.Get("Authorization") == "" {
		return false
	}
	return refusalProblem(s.ingress.CheckHost(r)) == nil && s.authorize(openapi.Traits{Action: access.ReadRules}, rec, r, "") == nil
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // an error means that the client has disconnected
}
