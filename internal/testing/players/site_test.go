// Package players plays a film with real players through nginx, with the configuration in
// deploy/edge. The players have no code for streamcount: a page in Chromium, which plays HLS
// without a library, ffmpeg and curl.
package players

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/browser"
	"streamcount/internal/testing/freeport"
	"streamcount/internal/testing/longtest"
	"streamcount/internal/testing/proxies"
)

func TestMain(m *testing.M) {
	code := browser.Main(m)
	if err := os.RemoveAll(filmDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var filmDir string // with the film, or "" if no test has needed it

// makeFilm makes a film of ten minutes. It has segments of four seconds, and separate renditions
// of the picture and of the sound.
var makeFilm = sync.OnceValue(func() error {
	var err error
	if filmDir, err = os.MkdirTemp("", "streamcount-film-"); err != nil {
		return err
	}
	cmd := exec.Command("ffmpeg", append(strings.Fields(`-nostdin -loglevel error
		-f lavfi -i testsrc2=size=320x180:rate=8:duration=600 -f lavfi -i sine=frequency=300:sample_rate=16000:duration=600
		-map 0:v -map 1:a -c:v libx264 -preset ultrafast -profile:v baseline -pix_fmt yuv420p -g 16 -sc_threshold 0 -b:v 100k
		-c:a aac -b:a 24k -f hls -hls_time 4 -hls_playlist_type vod -hls_segment_type fmp4 -hls_fmp4_init_filename init.mp4
		-hls_segment_filename %v-%d.m4s -master_pl_name master.m3u8`),
		"-var_stream_map", "v:0,agroup:sound,name:video a:0,agroup:sound,default:yes,name:audio", "%v.m3u8")...)
	cmd.Dir = filmDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a film: %w\n%s", err, out)
	}
	return nil
})

const (
	user   = "maya"
	secret = "a secret of viewers' tokens, for tests"
)

// A site has a node, nginx with the film, and a server in front of nginx, which has the page
// with the player and records the answers of nginx.
type site struct {
	t    *testing.T
	node *browser.Node
	url  string // of the server in front of nginx

	mu      sync.Mutex
	answers []answer
}

// An answer is an answer of nginx to a request for a file of the film.
type answer struct {
	at           time.Time
	method, path string
	status       int
}

// newSite starts a site on which each viewer may have limit streams, and where nginx keeps a
// permission for the time cache.
func newSite(t *testing.T, limit int, cache string) *site {
	t.Helper()
	longtest.Require(t, "ffmpeg", "curl")
	require.NoError(t, makeFilm())
	port, err := freeport.Find()
	require.NoError(t, err)
	edge := fmt.Sprintf("127.0.0.1:%d", port)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	s := &site{t: t}
	s.node = browser.StartNode(t, "--ttl=60s", fmt.Sprint("--limit=", limit), "--edge-listen="+edge,
		"--edge-file="+write("edge.yaml", proxies.Deployed(t, "edge.yaml", "from: original", "from: original\n    cache: "+cache)),
		"--auth-secret-file="+write("viewers.secret", secret), "--auth-issuer=site", "--auth-audience=streamcount")

	media := http.NewServeMux() // each film has the same files
	media.HandleFunc("GET /vod/{film}/{file}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, os.DirFS(filmDir), r.PathValue("file"))
	})
	origin := httptest.NewServer(media)
	t.Cleanup(origin.Close)
	nginx := proxies.NGINX.Start(t, proxies.Settings{
		Node: edge, Key: "unused", Origin: origin.Listener.Addr().String(), Patient: true, // the node accepts this machine
	})

	front := http.NewServeMux()
	front.HandleFunc("/t/", s.record(nginx))
	front.HandleFunc("GET /player", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join("testdata", "player.html"))
	})
	server := httptest.NewServer(front)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// record returns a handler that sends requests to nginx and records its answers.
func (s *site) record(nginx string) http.HandlerFunc {
	to, err := url.Parse(nginx)
	require.NoError(s.t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.answers = append(s.answers, answer{time.Now(), r.Request.Method, r.Request.URL.Path, r.StatusCode})
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { // the player has closed the connection
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	return proxy.ServeHTTP
}

// token returns a token of the user for one playback.
func (s *site) token(playback string) string {
	s.t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "site", "aud": "streamcount", "sub": user, "jti": playback, "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(secret))
	require.NoError(s.t, err)
	return token
}

// call sends a request of the user to the API, decodes the answer into out, and returns the
// status.
func (s *site) call(method, path, body string, out any) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.node.URL+"/api/v1/streams/users/"+user+path, strings.NewReader(body))
	require.NoError(s.t, err)
	req.Header.Set("Authorization", "Bearer "+s.token("account"))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	defer func() { _ = resp.Body.Close() }()
	require.NoError(s.t, json.NewDecoder(resp.Body).Decode(out))
	return resp.StatusCode
}

// list returns the streams of the user.
func (s *site) list() []apitype.Stream {
	s.t.Helper()
	var list apitype.User
	require.Equal(s.t, http.StatusOK, s.call(http.MethodGet, "", "", &list))
	return list.Active
}

// A playback is one playback of a film by one player. Its token is in the path of each request.
type playback struct {
	*site
	name string
	dir  string // "/t/TOKEN/", the path of the films
}

func (s *site) playback(name string) *playback {
	s.t.Helper()
	return &playback{site: s, name: name, dir: "/t/" + s.token(name) + "/"}
}

// playlist returns the path of the playlist of a film.
func (p *playback) playlist(film string) string { return p.dir + film + "/master.m3u8" }

// page returns the URL of the page that plays a film.
func (p *playback) page(film string) string {
	return p.url + "/player?" + url.Values{"name": {p.name}, "film": {p.playlist(film)}}.Encode()
}

// received returns the answers to the GET requests of the player with one of the statuses.
func (p *playback) received(statuses ...int) []answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []answer
	for _, a := range p.answers {
		for _, status := range statuses {
			if a.status == status && a.method == http.MethodGet && strings.HasPrefix(a.path, p.dir) {
				found = append(found, a)
			}
		}
	}
	return found
}

// segments returns the number of segments of a rendition that the player has received.
func (p *playback) segments(rendition string) int {
	n := 0
	for _, a := range p.received(http.StatusOK, http.StatusPartialContent) {
		if strings.Contains(a.path, "/"+rendition+"-") {
			n++
		}
	}
	return n
}
