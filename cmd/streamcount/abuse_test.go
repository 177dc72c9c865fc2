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

	"streamcount/internal/testing/longtest"
	"streamcount/internal/testing/testlog"
)

// An attack runs until ctx ends or earlier.
type attack struct {
	name string
	run  func(ctx context.Context, v *targetNode)
}

// attacks returns requests and connections of malicious or broken clients. It is a function
// because compressing the bodies takes seconds.
func attacks() []attack {
	return []attack{
		{"headers, a byte at a time", sendSlowly("GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + strings.Repeat("a", 4000))},
		{"a body, a byte at a time", sendSlowly("POST /api/v1/streams/users/slow/start HTTP/1.1\r\nHost: localhost\r\n" +
			"Content-Type: application/json\r\nContent-Length: 4000\r\n\r\n" + strings.Repeat(" ", 4000))},
		{"unread responses", readNothing},
		{"bodies that never come, more than requests may be in flight", holdConnections(6000, "POST /api/v1/streams/users/x/streams/x/heartbeat "+
			"HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")},
		{"connections", openConnections},
		{"headers of 64 KiB, and a thousand of them", sendRepeatedly(
			"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("a", 64<<10)+"\r\n\r\n",
			"GET /readyz HTTP/1.1\r\nHost: localhost\r\n"+strings.Repeat("X: a\r\n", 1000)+"\r\n")},
		{"deep nesting", sendRepeatedly(compressedRequest("application/json", "", []byte(strings.Repeat("[", 200_001))))},
		{"four megabytes of nothing", sendRepeatedly(compressedRequest("application/json", "", bytes.Repeat([]byte(" "), 4<<20)))},
		{"a small body that unpacks to 64 MiB", sendRepeatedly(
			compressedRequest("application/json", "Content-Encoding: gzip\r\n", gzipZeros(64<<20)))},
		{"a chunk that never ends", sendSlowly("POST /api/v1/streams/users/slow/start HTTP/1.1\r\nHost: localhost\r\n" +
			"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + strings.Repeat(" ", 4000))},
		{"noise", sendRepeatedly("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"\x00\x00\x00\x00\r\n\r\n")},
		{"unread event streams", holdConnections(600, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"forged stream ids", sendForgedIDs},
		{"one user's loop", startRepeatedly},
	}
}

// A targetNode is a node that runs in a separate process.
type targetNode struct {
	t    *testing.T
	addr string
	pid  int
}

func startTarget(t *testing.T) *targetNode {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), exe, "serve", "--listen=127.0.0.1:0",
		"--data-dir="+t.TempDir(), "--log-level=error")
	cmd.Env = []string{asMain + "=1", "PATH=" + os.Getenv("PATH")}
	var out, errOut testlog.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, cmd.Wait(), &errOut)
		assert.NotContains(t, errOut.String(), "panic")
	})
	require.Eventually(t, func() bool { return servingAt.MatchString(out.String()) }, time.Minute, 10*time.Millisecond)
	return &targetNode{t, strings.TrimPrefix(servingAt.FindStringSubmatch(out.String())[1], "http://"), cmd.Process.Pid}
}

func (v *targetNode) dial(ctx context.Context) net.Conn {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", v.addr)
	if err != nil {
		return nil
	}
	return c
}

// resources returns the numbers of open files and goroutines of the node.
func (v *targetNode) resources() (files, goroutines int) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.pid))
	require.NoError(v.t, err)
	_, text := status(v.t, "http://"+v.addr+"/metrics")
	_, rest, ok := strings.Cut(text, "\ngo_goroutines ")
	require.True(v.t, ok)
	_, err = fmt.Sscan(rest, &goroutines)
	require.NoError(v.t, err)
	return len(open), goroutines
}

// onConnections runs do on n connections until ctx ends, and again after a connection closes.
func (v *targetNode) onConnections(ctx context.Context, n int, do func(net.Conn)) {
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

func sendSlowly(raw string) func(context.Context, *targetNode) {
	return func(ctx context.Context, v *targetNode) {
		v.onConnections(ctx, 500, func(c net.Conn) {
			for i := range raw {
				if _, err := c.Write([]byte{raw[i]}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}

func sendRepeatedly(raws ...string) func(context.Context, *targetNode) {
	return func(ctx context.Context, v *targetNode) {
		v.onConnections(ctx, 4, func(c net.Conn) {
			go func() { _, _ = io.WriteString(c, raws[rand.N(len(raws))]) }()
			_, _ = io.ReadAll(io.LimitReader(c, 64<<10))
		})
	}
}

// holdConnections sends one request on each of n connections and keeps them open.
func holdConnections(n int, raw string) func(context.Context, *targetNode) {
	return func(ctx context.Context, v *targetNode) {
		v.onConnections(ctx, n, func(c net.Conn) {
			if _, err := io.WriteString(c, raw); err == nil {
				<-ctx.Done()
			}
		})
	}
}

func compressedRequest(media, header string, body []byte) string {
	return fmt.Sprintf("POST /api/v1/streams/users/bomb/start HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+
		"Content-Type: %s\r\n%sContent-Length: %d\r\n\r\n%s", media, header, len(body), body)
}

func gzipZeros(size int) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(make([]byte, size)) // a bytes.Buffer returns no errors
	_ = w.Close()
	return b.Bytes()
}

// readNothing requests the largest page repeatedly and does not read the responses.
func readNothing(ctx context.Context, v *targetNode) {
	v.onConnections(ctx, 200, func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// openConnections opens up to 10,000 connections from one address.
func openConnections(ctx context.Context, v *targetNode) {
	v.onConnections(ctx, min(10_000, maxOpenFiles()*3/4), func(c net.Conn) { _, _ = io.ReadAll(c) })
}

// sendForgedIDs sends well-formed stream ids that were not issued.
func sendForgedIDs(ctx context.Context, v *targetNode) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	v.onConnections(ctx, 4, func(c net.Conn) {
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
				v.t.Errorf("the response to a forged id is %.60q", answer[:n])
				return
			}
		}
	})
}

// startRepeatedly starts streams of one user without a pause.
func startRepeatedly(ctx context.Context, v *targetNode) {
	v.onConnections(ctx, 16, func(c net.Conn) {
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

// During each attack all calls of a well-behaved viewer succeed, and the median latency is
// low enough for playback. After it the node uses no more resources than before.
func TestAbuse(t *testing.T) {
	longtest.Require(t)
	v := startTarget(t)
	filesBefore, goroutinesBefore := v.resources()
	for i, a := range attacks() {
		ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		var attacking sync.WaitGroup
		attacking.Go(func() { a.run(ctx, v) })
		took := v.runViewer(ctx, fmt.Sprint("viewer-", i))
		stop()
		attacking.Wait()
		require.NotEmpty(t, took, "beside %s", a.name)
		slices.Sort(took)
		t.Logf("%-45s %4d cycles beside it, p50 %v, the slowest %v", a.name, len(took), took[len(took)/2].Round(time.Millisecond),
			took[len(took)-1].Round(time.Millisecond))
		assert.Less(t, took[len(took)/2], 3*time.Second, "beside %s", a.name)
	}
	assert.Eventually(t, func() bool {
		files, goroutines := v.resources()
		return files <= filesBefore+20 && goroutines <= goroutinesBefore+100
	}, time.Minute, 100*time.Millisecond, "what attackers left behind goes away")
}

// runViewer starts, renews and stops streams until ctx ends, and returns the latencies.
func (v *targetNode) runViewer(ctx context.Context, user string) []time.Duration {
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
		time.Sleep(20 * time.Millisecond) // more often than a person
	}
	return took
}
