package web

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/browser"
)

func TestMain(m *testing.M) { os.Exit(browser.Main(m)) }

func get(pages map[string]http.Handler, path, ifNoneMatch string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("If-None-Match", ifNoneMatch)
	pages[path].ServeHTTP(w, r)
	return w
}

func TestPages(t *testing.T) {
	pages := Pages()
	for _, path := range []string{"/", "/demo", "/demo/demo.css", "/icon.svg", "/streamcount.js", "/streamcount-worker.js"} {
		require.Contains(t, pages, path)
	}
	for path := range pages {
		w := get(pages, path, "")
		h := w.Header()
		assert.Equal(t, 200, w.Code, path)
		assert.NotEmpty(t, w.Body.Bytes(), path)
		assert.Contains(t, h.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'", path)
		assert.Contains(t, h.Get("Content-Security-Policy"), "worker-src 'self'", path)
		assert.Contains(t, h.Get("Content-Security-Policy"), "frame-ancestors 'none'", path)
		assert.NotContains(t, h.Get("Content-Security-Policy"), "unsafe", path)
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), path)
		assert.Equal(t, "no-cache", h.Get("Cache-Control"), path)
		for _, known := range []string{h.Get("ETag"), "W/" + h.Get("ETag"), `"other", ` + h.Get("ETag"), "*"} {
			again := get(pages, path, known)
			assert.Equal(t, 304, again.Code, "%s with %s", path, known)
			assert.Empty(t, again.Body.Bytes())
		}
		assert.Equal(t, 200, get(pages, path, `"other"`).Code, path)
	}
	assert.Equal(t, "text/html; charset=utf-8", get(pages, "/", "").Header().Get("Content-Type"))
	assert.Equal(t, "image/svg+xml", get(pages, "/icon.svg", "").Header().Get("Content-Type"))

	script := get(pages, "/streamcount.js", "").Header()
	assert.Equal(t, "text/javascript; charset=utf-8", script.Get("Content-Type"))
	assert.Equal(t, "*", script.Get("Access-Control-Allow-Origin"), "pages of other origins may load the client")
	assert.Empty(t, get(pages, "/demo", "").Header().Get("Access-Control-Allow-Origin"))

	w := httptest.NewRecorder()
	pages["/"].ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/", nil))
	assert.Empty(t, w.Body.Bytes())
	assert.NotEqual(t, "0", w.Header().Get("Content-Length"))
}

var (
	otherHost = regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]`)
	inHTML    = regexp.MustCompile(`(?i)<script(\s[^>]*)?>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:`)
	reference = regexp.MustCompile(`(?:\s(?:src|href)="|\bfrom "|\bimport\("?|\bimport "|new URL\(")([./][^"#?]*)`)
)

// elsewhere are paths that the API serves.
var elsewhere = map[string]bool{"/docs": true, "/api/v1/stats": true, "/openapi.json": true}

// No file loads anything from another host, contains anything that the policy blocks, or
// links to a missing file.
func TestPages_Content(t *testing.T) {
	pages := Pages()
	for at := range pages {
		w := get(pages, at, "")
		body := w.Body.String()
		own := strings.ReplaceAll(body, "http://www.w3.org/2000/svg", "")
		assert.Empty(t, otherHost.FindAllString(own, -1), at)
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			assert.Empty(t, inHTML.FindAllString(body, -1), at)
		}
		for _, found := range reference.FindAllStringSubmatch(body, -1) {
			to := found[1]
			if !strings.HasPrefix(to, "/") {
				to = path.Join(path.Dir(at), to)
			}
			assert.True(t, pages[to] != nil || elsewhere[to], "%s leads to %s", at, to)
		}
	}
}

// Every file of the directories is served: its extension is in mediaTypes.
func TestPages_Complete(t *testing.T) {
	pages, served := Pages(), 0
	for _, dir := range []string{".", "console", "demo"} {
		entries, err := files.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			assert.Contains(t, pages, address(path.Join(dir, e.Name())))
			served++
		}
	}
	assert.Len(t, pages, served)
}

// The pages of a running node, in a browser.
func TestHome(t *testing.T) {
	node := browser.StartNode(t)
	tab := browser.Open(t).Tab(node.URL)
	tab.WaitText("h1", "streamcount")
	assert.Equal(t, 200, node.Call(http.MethodGet, "/docs", "", nil))
	tab.Click(`a[href="/docs"]`)
	tab.WaitText("body", "heartbeat")
}
