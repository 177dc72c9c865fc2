// Command hls is a small site with HLS films whose number of simultaneous streams per
// viewer is limited by streamcount. docs/tutorial.md uses it.
//
// The page starts streams with streamcount.js and a token that the site signs for the
// viewer who is logged in. The site serves playlists and segments only under the id of
// a live stream.
package main

import (
	"embed"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

//go:embed site
var pages embed.FS

// A site serves films to viewers who are logged in and have a live stream.
type site struct {
	streamcount string // URL of the service
	films       string // folder with .m3u8 files and their segments
	secret      []byte // signs viewers' tokens; the service has the same
	sessions    sessions
	client      *http.Client
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to serve the site on")
	service := flag.String("streamcount", "http://127.0.0.1:3000", "address of streamcount")
	films := flag.String("films", "films", "folder with .m3u8 files and their segments")
	secretFile := flag.String("secret-file", "viewers.secret", "file with the secret that signs viewers' tokens")
	flag.Parse()

	secret, err := os.ReadFile(*secretFile)
	if err != nil {
		log.Fatalf("read the file of --secret-file, which must be the same as streamcount's --auth-secret-file: %v", err)
	}
	s := newSite(*service, *films, secret)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("films at http://%s", *listen)
	log.Fatal(newServer(s.handler()).Serve(listener))
}

const maxBody = 4 << 10 // bytes; the only body is that of a login

// newServer returns a server with timeouts. Without them a client that sends or reads
// nothing would keep its connection indefinitely.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, // for a segment over a slow network
		IdleTimeout:  2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
}

func newSite(service, films string, secret []byte) *site {
	return &site{
		streamcount: strings.TrimRight(service, "/"), films: films,
		// streamcount ignores a line end that an editor added, too.
		secret: []byte(strings.TrimSuffix(string(secret), "\n")),
		client: &http.Client{
			Timeout:       3 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("GET /viewer", s.forViewers(s.viewer))
	mux.HandleFunc("GET /watch/{stream}/{file...}", s.forViewers(s.watch))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pages, "site/index.html")
	})
	mux.HandleFunc("GET /player.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pages, "site/player.js")
	})
	// Other sites must not log a browser in or out.
	return http.MaxBytesHandler(http.NewCrossOriginProtection().Handler(mux), maxBody)
}

// watch serves a playlist or a segment, while the stream in its address is alive.
func (s *site) watch(w http.ResponseWriter, r *http.Request, user string) {
	if !s.alive(r, user, r.PathValue("stream")) {
		http.Error(w, "this stream has ended", http.StatusForbidden)
		return
	}
	name := r.PathValue("file")
	if strings.HasSuffix(name, ".m3u8") {
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
	}
	w.Header().Set("Cache-Control", "private, no-store") // a cache must not serve it to viewers without a stream
	http.ServeFileFS(w, r, os.DirFS(s.films), name)      // no name leads out of the folder
}
