package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An attack goes on until ctx ends, or is over before.
type attack struct {
	name string
	run  func(ctx context.Context, v *victim)
}

// attacks are what clients of ill will, or of none, do to a node. To pack a bomb takes
// seconds, so they are made where they are needed, not in every process that starts.
func attacks() []attack {
	return []attack{
		{"headers, a byte at a time", slowly("GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + strings.Repeat("a", 4000))},
		{"a body, a byte at a time", slowly("POST /api/v1/streams/users/slow/start HTTP/1.1\r\nHost: localhost\r\n" +
			"Content-Type: application/json\r\nContent-Length: 4000\r\n\r\n" + strings.Repeat(" ", 4000))},
		{"answers that nobody reads", unread},
		{"connections", flood},
		{"headers of 64 KiB, and a thousand of them", repeated(
			"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("a", 64<<10)+"\r\n\r\n",
			"GET /readyz HTTP/1.1\r\nHost: localhost\r\n"+strings.Repeat("X: a\r\n", 1000)+"\r\n")},
		{"deep nesting", repeated(bomb("application/json", "", []byte(strings.Repeat("[", 200_001))))},
		{"four megabytes of nothing", repeated(bomb("application/json", "", bytes.Repeat([]byte(" "), 4<<20)))},
		{"a small body that unpacks to 64 MiB", repeated(
			bomb("application/json", "Content-Encoding: gzip\r\n", zipped(64<<20)))},
		{"a chunk that never ends", slowly("POST /api/v1/streams/users/slow/start HTTP/1.1\r\nHost: localhost\r\n" +
			"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + strings.Repeat(" ", 4000))},
		{"noise", repeated("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"\x00\x00\x00\x00\r\n\r\n")},
		{"streams of events that nobody reads", held(600, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"forged stream ids", forged},
		{"one user's loop", hammer},
	}
}

// A victim is a node in a process of its own.
type victim struct {
	t    *testing.T
	addr string
	pid  int
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), exe, "serve", "--listen=127.0.0.1:0",
		"--data-dir="+t.TempDir(), "--log-level=error")
	cmd.Env = []string{asMain + "=1", "PATH=" + os.Getenv("PATH")}
	var out, errOut buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, cmd.Wait(), &errOut)
		assert.NotContains(t, errOut.String(), "panic")
	})
	require.Eventually(t, func() bool { return servingAt.MatchString(out.String()) }, time.Minute, 10*time.Millisecond)
	return &victim{t, strings.TrimPrefix(servingAt.FindStringSubmatch(out.String())[1], "http://"), cmd.Process.Pid}
}

func (v *victim) dial(ctx context.Context) net.Conn {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", v.addr)
	if err != nil {
		return nil
	}
	return c
}

// held are the node's open files and goroutines.
func (v *victim) held() (files, goroutines int) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.pid))
	require.NoError(v.t, err)
	_, text := status(v.t, "http://"+v.addr+"/metrics")
	_, rest, ok := strings.Cut(text, "\ngo_goroutines ")
	require.True(v.t, ok)
	_, err = fmt.Sscan(rest, &goroutines)
	require.NoError(v.t, err)
	return len(open), goroutines
}

// each runs do on n connections until ctx ends, and again when one is closed.
func (v *victim) each(ctx context.Context, n int, do func(net.Conn)) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				c := v.dial(ctx)
				if c == nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				do(c)
				stop()
				_ = c.Close()
			}
		})
	}
	all.Wait()
}

func slowly(raw string) func(context.Context, *victim) {
	return func(ctx context.Context, v *victim) {
		v.each(ctx, 500, func(c net.Conn) {
			for i := range raw {
				if _, err := c.Write([]byte{raw[i]}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}

func repeated(raws ...string) func(context.Context, *victim) {
	return func(ctx context.Context, v *victim) {
		v.each(ctx, 4, func(c net.Conn) {
			go func() { _, _ = io.WriteString(c, raws[rand.N(len(raws))]) }()
			_, _ = io.ReadAll(io.LimitReader(c, 64<<10))
		})
	}
}

// held asks once on each of n connections, and goes on holding it.
func held(n int, raw string) func(context.Context, *victim) {
	return func(ctx context.Context, v *victim) {
		v.each(ctx, n, func(c net.Conn) {
			if _, err := io.WriteString(c, raw); err == nil {
				<-ctx.Done()
			}
		})
	}
}

func bomb(media, header string, body []byte) string {
	return fmt.Sprintf("POST /api/v1/streams/users/bomb/start HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+
		"Content-Type: %s\r\n%sContent-Length: %d\r\n\r\n%s", media, header, len(body), body)
}

func zipped(size int) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(make([]byte, size)) // memory takes all
	_ = w.Close()
	return b.Bytes()
}

// unread asks for the largest page again and again, and reads nothing.
func unread(ctx context.Context, v *victim) {
	v.each(ctx, 200, func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// flood opens as many connections from one address as it gets, up to 10,000.
func flood(ctx context.Context, v *victim) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return
	}
	n := int(min(10_000, files.Cur*3/4))
	v.each(ctx, n, func(c net.Conn) { _, _ = io.ReadAll(c) })
}

// forged sends ids of the right shape that nobody has made.
func forged(ctx context.Context, v *victim) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	v.each(ctx, 4, func(c net.Conn) {
		for answer := make([]byte, 4096); ; {
			id := make([]byte, 52)
			for i := range id {
				id[i] = letters[rand.N(len(letters))]
			}
			_, err := fmt.Fprintf(c, "POST /api/v1/streams/users/maya/streams/%s/heartbeat HTTP/1.1\r\nHost: localhost\r\n\r\n", id)
			if err != nil {
				return
			}
			n, err := c.Read(answer)
			if err != nil {
				return
			}
			if !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 404")) && !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 5")) {
				v.t.Errorf("a forged id is answered %.60q", answer[:n])
				return
			}
		}
	})
}

// hammer starts streams of one user as fast as it is answered.
func hammer(ctx context.Context, v *victim) {
	v.each(ctx, 16, func(c net.Conn) {
		for answer := make([]byte, 4096); ; {
			if _, err := io.WriteString(c, "POST /api/v1/streams/users/loop/start HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return
			}
			if _, err := c.Read(answer); err != nil {
				return
			}
		}
	})
}

// A viewer who behaves goes on beside every attack: nothing of his fails, and half of
// his answers are as quick as a film needs them. Afterwards the node holds no more than before.
func TestAbuse(t *testing.T) {
	if testing.Short() {
		t.Skip("attacks a node for a while")
	}
	v := newVictim(t)
	filesBefore, goroutinesBefore := v.held()
	for i, a := range attacks() {
		ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		var attacking sync.WaitGroup
		attacking.Go(func() { a.run(ctx, v) })
		took := v.viewer(ctx, fmt.Sprint("viewer-", i))
		stop()
		attacking.Wait()
		require.NotEmpty(t, took, "beside %s", a.name)
		slices.Sort(took)
		t.Logf("%-45s %4d cycles beside it, p50 %v, the slowest %v", a.name, len(took), took[len(took)/2].Round(time.Millisecond),
			took[len(took)-1].Round(time.Millisecond))
		assert.Less(t, took[len(took)/2], 3*time.Second, "beside %s", a.name)
	}
	assert.Eventually(t, func() bool {
		files, goroutines := v.held()
		return files <= filesBefore+20 && goroutines <= goroutinesBefore+100
	}, time.Minute, 100*time.Millisecond, "what attackers left behind goes away")
}

// viewer starts, keeps and stops streams until ctx ends, and returns how long each of
// these took.
func (v *victim) viewer(ctx context.Context, user string) []time.Duration {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var took []time.Duration
	call := func(path string) (id string) {
		began := time.Now()
		url := "http://" + v.addr + "/api/v1/streams/users/" + user + path
		req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, url, nil)
		require.NoError(v.t, err)
		resp, err := client.Do(req)
		require.NoError(v.t, err)
		defer resp.Body.Close()
		var body struct{ Stream struct{ ID string } }
		require.NoError(v.t, json.NewDecoder(resp.Body).Decode(&body))
		assert.Equal(v.t, 200, resp.StatusCode, path)
		took = append(took, time.Since(began))
		return body.Stream.ID
	}
	for ctx.Err() == nil {
		id := call("/start")
		call("/streams/" + id + "/heartbeat")
		call("/streams/" + id + "/stop")
		time.Sleep(20 * time.Millisecond) // a person's rate, and some
	}
	return took
}
