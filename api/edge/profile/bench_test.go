package profile

import (
	"context"
	"testing"
	"time"
)

// BenchmarkCheck measures what the edge computes for a request of a known viewer:
//
//	go test -run xxx -bench . ./api/edge/profile
func BenchmarkCheck(b *testing.B) {
	p, v := parse(b, withCookie), newVerifier(b)
	now := time.Now()
	token := "/film-77/video/segment-4711.m4s?t=" + sign(b, "maya", "sid", "tab-1", "did", "tv-1")
	id, err := identify(p, v, get(token), now)
	if err != nil {
		b.Fatal(err)
	}
	cookie := "theme=dark; sc=" + id.Cookie.Value
	for name, r := range map[string]Request{
		"Token":  get(token, "Cookie", cookie, "User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"),
		"Cookie": get("/film-77/video/segment-4711.m4s", "Cookie", cookie, "User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t, err := p.Read(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Identify(context.Background(), r, t, v, key, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
