package attack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"streamcount/internal/retry"
)

const (
	clientsPerAddress = 10
	clientTimeout     = 5 * time.Second // a player stops waiting for an answer after that
)

// clients are the clients at one address and the results of their calls.
type clients struct {
	address string
	wg      sync.WaitGroup
	mu      sync.Mutex
	calls   map[string]*callStats
}

type callStats struct {
	succeeded, failed int
	latencies         []time.Duration
	errors            map[string]int
}

var callNames = []string{"start", "heartbeat", "stop"}

// startClients has clients at an address start, renew and stop streams until ctx ends.
func startClients(ctx context.Context, server, address string) *clients {
	cs := &clients{address: address, calls: map[string]*callStats{}}
	for _, name := range callNames {
		cs.calls[name] = &callStats{errors: map[string]int{}}
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: clientTimeout}
	client := &http.Client{Timeout: clientTimeout, Transport: &http.Transport{DialContext: dialer.DialContext}}
	for i := range clientsPerAddress {
		cs.wg.Go(func() {
			user := fmt.Sprintf("http://%s/api/v1/streams/users/%s-%d", server, address, i)
			for retry.Sleep(ctx, 50*time.Millisecond) == nil {
				id := cs.call(ctx, client, "start", user+"/start", `{"session":"a"}`)
				if id == "" {
					continue
				}
				cs.call(ctx, client, "heartbeat", user+"/streams/"+id+"/heartbeat", "")
				cs.call(ctx, client, "stop", user+"/streams/"+id+"/stop", "")
			}
		})
	}
	return cs
}

// call makes one call and returns the id of the stream that it started.
func (cs *clients) call(ctx context.Context, client *http.Client, name, url, body string) (id string) {
	began := time.Now()
	id, err := post(ctx, client, url, body)
	if ctx.Err() != nil {
		return ""
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	stats := cs.calls[name]
	stats.latencies = append(stats.latencies, time.Since(began))
	if err != nil {
		stats.failed++
		stats.errors[err.Error()]++
		return ""
	}
	stats.succeeded++
	return id
}

func post(ctx context.Context, client *http.Client, url, body string) (id string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() {
			return "", errors.New("timeout")
		}
		return "", errors.New("connection closed")
	}
	defer func() { _ = res.Body.Close() }() // the body has been read
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "", errors.New("incomplete answer")
	}
	if res.StatusCode != http.StatusOK {
		return "", errors.New(res.Status)
	}
	var out struct{ Stream struct{ ID string } }
	err = json.Unmarshal(b, &out)
	return out.Stream.ID, err
}

// wait returns when all clients have stopped.
func (cs *clients) wait() { cs.wg.Wait() }

// String is the report, one line per kind of call. It must follow wait.
func (cs *clients) String() string {
	var b strings.Builder
	for _, name := range callNames {
		stats := cs.calls[name]
		slices.Sort(stats.latencies)
		fmt.Fprintf(&b, "  from %s  %-9s %5d succeeded %5d failed", cs.address, name, stats.succeeded, stats.failed)
		if n := len(stats.latencies); n > 0 {
			fmt.Fprintf(&b, "   p50 %v  p99 %v", stats.latencies[n/2].Round(100*time.Microsecond), stats.latencies[n*99/100].Round(100*time.Microsecond))
		}
		for _, text := range slices.Sorted(maps.Keys(stats.errors)) {
			fmt.Fprintf(&b, "  %d x %s", stats.errors[text], text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
