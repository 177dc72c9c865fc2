package players

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/browser"
)

// run runs a program and returns its output.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

// TestPrograms plays with ffmpeg and curl.
func TestPrograms(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, "1s")
	ffmpeg := func(p *playback) (string, error) {
		return run(t, "ffmpeg", "-nostdin", "-loglevel", "warning", "-i", s.url+p.playlist("film"), "-t", "20", "-f", "null", "-")
	}
	curl := func(p *playback, file string) string {
		out, err := run(t, "curl", "--silent", "--write-out", "\n%{http_code}", s.url+path.Dir(p.playlist("film"))+"/"+file)
		require.NoError(t, err, out)
		return out
	}
	for i := range 2 {
		p := s.playback(fmt.Sprint("ffmpeg ", i))
		out, err := ffmpeg(p)
		require.NoError(t, err, out)
		assert.GreaterOrEqual(t, p.segments("video"), 5)
		assert.GreaterOrEqual(t, p.segments("audio"), 5)
		assert.Len(t, s.list(), i+1, "ffmpeg has one stream")
	}
	third := s.playback("curl")
	for _, file := range []string{"master.m3u8", "video.m3u8", "audio.m3u8"} {
		out := curl(third, file)
		assert.Contains(t, out, "#EXTM3U")
		assert.True(t, strings.HasSuffix(out, "\n200"), out)
	}
	for _, file := range []string{"video-0.m4s", "audio-0.m4s", "video-1.m4s"} {
		assert.Regexp(t, `\n200$`, curl(third, file))
	}
	assert.Len(t, s.list(), 3)

	fourth := s.playback("another ffmpeg")
	out, err := ffmpeg(fourth)
	t.Log("ffmpeg, the fourth player:", out)
	require.Error(t, err)
	assert.Contains(t, out, "403")
	for _, file := range []string{"master.m3u8", "video.m3u8", "video-0.m4s"} {
		out := curl(fourth, file)
		assert.Regexp(t, `\n403$`, out)
		assert.Contains(t, out, `"reason":"limit"`)
	}
	assert.Empty(t, fourth.received(http.StatusOK, http.StatusPartialContent))
	assert.Len(t, s.list(), 3)
}

// TestEvictedPlayer measures how long a player receives the film after another start has taken
// its slot, if nginx keeps permissions and if it does not.
func TestEvictedPlayer(t *testing.T) {
	t.Parallel()
	for _, cache := range []string{"1s", "0s"} {
		t.Run("cache="+cache, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1, cache)

			// A client that requests segments without a pause shows how long nginx sends them.
			const evictions = 8
			for i := range evictions {
				p := s.playback(fmt.Sprint("client ", i))
				stop := make(chan struct{})
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					requestSegments(s.url+path.Dir(p.playlist("film"))+"/video-0.m4s", stop)
				}()
				received := func(status int) func() bool { return func() bool { return len(p.received(status)) >= 20 } }
				require.Eventually(t, received(http.StatusOK), time.Minute, progress)
				before, after := s.evict(t)
				require.Eventually(t, received(http.StatusForbidden), time.Minute, progress, "the player is refused")
				close(stop)
				<-ended
				p.logEviction(t, "client without a pause", before, after)
				s.stopAll(t)
			}

			// Chromium plays what it has in its buffer, and then stops.
			p := s.playback("tab")
			tab := browser.Open(t).Tab(p.page("film"))
			tab.Wait("the film plays", playing)
			before, after := s.evict(t)
			tab.WaitText("[role=status]", `"reason":"evicted"`)
			t.Logf("the picture stopped %s after the eviction", time.Since(after).Round(time.Millisecond))
			p.logEviction(t, "Chromium", before, after)
		})
	}
}

// requestSegments requests a URL again and again until stop is closed.
func requestSegments(url string, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		resp, err := http.Get(url) //nolint:noctx // it ends with the server
		if err != nil {
			return
		}
		_ = resp.Body.Close()
	}
}

// evict starts a stream in place of the oldest one, and returns the times before and after it.
func (s *site) evict(t *testing.T) (before, after time.Time) {
	t.Helper()
	var answer apitype.User
	before = time.Now()
	require.Equal(t, http.StatusOK, s.call(http.MethodPost, "/start", `{"onLimit":"replace-oldest"}`, &answer))
	return before, time.Now()
}

// stopAll ends all streams of the user.
func (s *site) stopAll(t *testing.T) {
	t.Helper()
	for _, stream := range s.list() {
		var answer apitype.User
		require.Equal(t, http.StatusOK, s.call(http.MethodDelete, "/streams/"+stream.ID, "", &answer))
	}
}

// logEviction logs what the player received after the eviction.
func (p *playback) logEviction(t *testing.T, player string, before, after time.Time) {
	t.Helper()
	files := 0
	last, refused := time.Duration(0), p.received(http.StatusForbidden)
	require.NotEmpty(t, refused)
	for _, a := range p.received(http.StatusOK, http.StatusPartialContent) {
		if a.at.After(after) {
			files++
			last = a.at.Sub(before)
		}
	}
	t.Logf("%s: %d files after the eviction, the last one after %s; the first 403 after %s",
		player, files, last.Round(time.Millisecond), refused[0].at.Sub(before).Round(time.Millisecond))
}
