package api

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"github.com/gorilla/mux"
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
		s.plain(r, path, s.cfg.Pages[path].ServeHTTP)
	}
	if s.cfg.Pages["/"] == nil {
		s.plain(r, "/", s.root)
	}
	return nil
}
