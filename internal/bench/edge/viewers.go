package edge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"streamcount/internal/bench/launch"
	"streamcount/internal/bench/load"
	"streamcount/internal/testing/freeport"
)

// A ViewersConfig describes a load of viewers who request one segment after another.
type ViewersConfig struct {
	Launch      launch.Config
	Viewers     int64
	Segment     time.Duration // interval between the requests of a viewer
	Ramp        time.Duration // time over which the viewers arrive
	Duration    time.Duration // of the measurement, when all viewers have arrived
	Connections int           // maximum number of requests in flight
	Proxy       string        // "nginx", or "" to send the checks to the node
	ProxyConfig string        // path of the configuration of the proxy
}

// viewersTTL is the TTL of the streams: the default of a node.
const viewersTTL = 90 * time.Second

// Check returns an error that names the first invalid setting.
func (cfg ViewersConfig) Check() error {
	switch {
	case cfg.Connections < 1 || cfg.Connections > 10_000:
		return errors.New("--connections: want 1 to 10000")
	case cfg.Viewers < int64(cfg.Connections) || cfg.Viewers > 1_000_000:
		return fmt.Errorf("--viewers: want %d, the number of connections, to 1000000", cfg.Connections)
	case cfg.Segment < 3*time.Second || cfg.Segment > viewersTTL/3:
		// nginx keeps a permission for up to two seconds.
		return fmt.Errorf("--segment: want 3s to %v, so that a proxy sends a check for each request", viewersTTL/3)
	case cfg.Ramp < 0 || cfg.Duration < time.Second:
		return errors.New("--duration: want 1s or more, and --ramp 0s or more")
	case cfg.Proxy != "" && cfg.Proxy != "nginx":
		return fmt.Errorf("--proxy: there is no proxy %q: want nginx, or leave it out", cfg.Proxy)
	}
	return nil
}

// A ViewersReport is the result of a load of viewers.
type ViewersReport struct {
	First  load.Summary // first requests, which start streams
	Steady load.Summary // requests when all viewers have arrived
	// The CPU times are those of the steady load. Proxy is 0 without a proxy.
	Node, Proxy, Generator time.Duration
	Failed                 error // nil if all requests were answered 200
}

// RunViewers measures viewers who request segments, each of which is checked.
func RunViewers(ctx context.Context, cfg ViewersConfig) (r ViewersReport, err error) {
	n, err := startNode(ctx, cfg.Launch, viewersTTL, true)
	if err != nil {
		return r, err
	}
	defer func() { err = launch.JoinErrors(err, n.stop(ctx)) }()
	base, proxyUsage := "http://"+n.edge, func() launch.Usage { return launch.Usage{} }
	if cfg.Proxy != "" {
		proxy, address, err := cfg.startProxy(ctx, n)
		if err != nil {
			return r, err
		}
		defer func() { _ = proxy.Stop() }() // its files are in the directory of the node
		base, proxyUsage = "http://"+address, proxy.Usage
	}
	requests := make([]request, cfg.Viewers)
	for k := range requests {
		if requests[k], err = cfg.request(n, fmt.Sprintf("viewer-%d", k)); err != nil {
			return r, err
		}
	}
	cs, closeAll, err := connections(ctx, base, cfg.Connections)
	if err != nil {
		return r, err
	}
	defer closeAll()

	var failed failures
	r.First = cfg.arrive(ctx, cs, requests, &failed)
	node, proxy, own := n.Usage().CPU, proxyUsage().CPU, launch.OwnCPU()
	steady := load.NewSeries(time.Now(), time.Second)
	cfg.plan(cfg.Viewers, cfg.Duration, 0).run(ctx, cs, requests, &failed, func(int64) *load.Series { return steady })
	r.Node, r.Proxy, r.Generator = n.Usage().CPU-node, proxyUsage().CPU-proxy, launch.OwnCPU()-own
	r.Steady = steady.Summary()
	if ctx.Err() == nil {
		err = n.verify(ctx, cfg.Viewers, &failed)
	}
	r.Failed = failed.err()
	return r, errors.Join(ctx.Err(), err)
}

// startProxy starts the proxy and returns its address. The media are a file of 1 KiB, so that the
// check takes most of the time of a request.
func (cfg ViewersConfig) startProxy(ctx context.Context, n *node) (*launch.Proxy, string, error) {
	port, err := freeport.Find()
	if err != nil {
		return nil, "", err
	}
	address, film := fmt.Sprintf("127.0.0.1:%d", port), filepath.Join(n.dir, "vod", "film")
	if err := os.MkdirAll(film, 0o700); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(film, "0.ts"), make([]byte, 1<<10), 0o600); err != nil {
		return nil, "", err
	}
	launcher := cfg.Launch
	launcher.Dir = n.dir
	proxy, err := launcher.StartNGINX(ctx, launch.NGINX{Template: cfg.ProxyConfig, Address: address, Node: n.edge, Root: n.dir})
	return proxy, address, err
}

// request returns the request of a viewer: for a segment, or its check if there is no proxy.
func (cfg ViewersConfig) request(n *node, user string) (request, error) {
	if cfg.Proxy == "" {
		return n.check(user)
	}
	path, err := n.media(user)
	return request{method: []byte("GET"), path: []byte(path)}, err
}

// arrive sends the requests of viewers who arrive in groups of the same size, and returns the
// latencies of the first requests. While a group arrives, each earlier viewer requests one segment.
func (cfg ViewersConfig) arrive(ctx context.Context, cs []*load.Conn, requests []request, failed *failures) load.Summary {
	first := load.NewSeries(time.Now(), time.Second)
	rounds := max(1, int64((cfg.Ramp+cfg.Segment-1)/cfg.Segment))
	arrived := int64(0)
	for round := range rounds {
		if ctx.Err() != nil {
			break
		}
		now := cfg.Viewers * (round + 1) / rounds
		cfg.plan(now, 0, now).run(ctx, cs, requests, failed, func(k int64) *load.Series {
			if k < arrived {
				return nil
			}
			return first
		})
		arrived = now
	}
	return first.Summary()
}

// A plan is a load of the first viewers. Each viewer requests a segment per interval.
type plan struct {
	load.Plan
	viewers int64
}

func (cfg ViewersConfig) plan(viewers int64, duration time.Duration, count int64) plan {
	return plan{load.Plan{
		Rate: float64(viewers) / cfg.Segment.Seconds(), Duration: duration, Count: count, Workers: cfg.Connections, Grace: answerTimeout,
	}, viewers}
}

// run sends the requests. series returns where the latency of a request of viewer k is recorded.
func (p plan) run(ctx context.Context, cs []*load.Conn, rs []request, failed *failures, series func(k int64) *load.Series) {
	unsent := p.Run(ctx, func(w int, i int64, due time.Time) {
		k := i % p.viewers
		_, err := rs[k].send(cs[w])
		failed.add(1, err)
		if now, s := time.Now(), series(k); s != nil && err == nil {
			s.Add(now, now.Sub(due), 1)
		}
	})
	failed.add(unsent, fmt.Errorf("not sent %v after the last request was due", answerTimeout))
}

// maxVerified is how many viewers are checked after the load.
const maxVerified = 1000

// verify checks that viewers have exactly one stream.
func (n *node) verify(ctx context.Context, viewers int64, failed *failures) error {
	cs, closeAll, err := connections(ctx, n.URL, 1)
	if err != nil {
		return err
	}
	defer closeAll()
	for k := range min(viewers, maxVerified) {
		user := fmt.Sprintf("viewer-%d", k)
		token, err := n.token(user, user)
		if err != nil {
			return err
		}
		body, err := request{method: []byte("GET"), path: []byte("/api/v1/streams/users/" + user), token: token}.send(cs[0])
		if streams, ok := load.Number(body, `"streams":`); err == nil && (!ok || streams != 1) {
			err = fmt.Errorf("%s does not have one stream: %.200s", user, body)
		}
		failed.add(1, err)
	}
	return nil
}

// Table returns the report as rows, of which the first has the headings.
func (r ViewersReport) Table() [][]string {
	rows := [][]string{{"requests", "number", "per second", "p50", "p99", "max"}}
	for _, of := range []struct {
		name string
		load.Summary
	}{{"first", r.First}, {"with all viewers", r.Steady}} {
		rate := 0.0
		if of.Took > 0 {
			rate = float64(of.Count) / of.Took.Seconds()
		}
		rows = append(rows, []string{
			of.name, fmt.Sprint(of.Count), fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.2f ms", millis(of.Quantile(50))),
			fmt.Sprintf("%.2f ms", millis(of.Quantile(99))), fmt.Sprintf("%.2f ms", millis(of.Quantile(100))),
		})
	}
	return rows
}

// CostTable returns the CPU times of the load with all viewers as rows.
func (r ViewersReport) CostTable() [][]string {
	rows := [][]string{{"process", "CPU per request", "processors"}}
	for _, of := range []struct {
		name string
		cpu  time.Duration
	}{{"node", r.Node}, {"proxy", r.Proxy}, {"load generator", r.Generator}} {
		if of.cpu > 0 && r.Steady.Count > 0 {
			rows = append(rows, []string{
				of.name, fmt.Sprintf("%.1f us", float64(of.cpu.Microseconds())/float64(r.Steady.Count)),
				fmt.Sprintf("%.2f", of.cpu.Seconds()/r.Steady.Took.Seconds()),
			})
		}
	}
	return rows
}
