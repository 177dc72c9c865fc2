// Command hls is a small site that shows HLS films and lets streamcount say how
// many of them a viewer watches at once. docs/tutorial.md goes with it.
//
// The page takes the slots, by streamcount.js and with a token that the site
// signs for whoever is logged in. The site hands out playlists and segments only
// under the id of a stream that is alive.
package main

import (
	"embed"
	"flag"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

//go:embed site
var pages embed.FS

// A site is the films, and who may see them.
type site struct {
	streamcount string // where the service is
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
		log.Fatalf("read the secret that streamcount was given by --auth-secret-file: %v", err)
	}
	s := newSite(*service, *films, secret)
	log.Printf("films at http://%s", *listen)
	log.Fatal(http.ListenAndServe(*listen, s.handler()))
}

func newSite(service, films string, secret []byte) *site {
	return &site{
		streamcount: strings.TrimRight(service, "/"), films: films,
		// An editor's line end is no part of the secret, for streamcount neither.
		secret: []byte(strings.TrimSuffix(string(secret), "\n")),
		client: &http.Client{Timeout: 3 * time.Second},
	}
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /viewer", s.forViewers(s.viewer))
	mux.HandleFunc("GET /watch/{stream}/{file...}", s.forViewers(s.watch))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pages, "site/index.html")
	})
	mux.HandleFunc("GET /player.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pages, "site/player.js")
	})
	return mux
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
	w.Header().Set("Cache-Control", "private, no-store") // not for whoever has no stream
	http.ServeFileFS(w, r, os.DirFS(s.films), name)      // no name leads out of the folder
}
