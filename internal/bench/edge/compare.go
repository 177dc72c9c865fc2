package edge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"streamcount/internal/bench/launch"
	"streamcount/internal/bench/load"
)

// A CheckConfig describes a comparison of checks with heartbeats.
type CheckConfig struct {
	Launch      launch.Config
	Connections int           // each sends its next call when it has the answer to the previous one
	Viewers     int64         // of each kind
	Runs        int           // for each way to identify viewers
	Duration    time.Duration // of each measurement
	Warmup      time.Duration // before each measurement
}

// restingTTL is the TTL of the streams. It is so long that hardly any call renews a stream.
const restingTTL = 10 * time.Minute

// Check returns an error that names the first invalid setting.
func (cfg CheckConfig) Check() error {
	switch {
	case cfg.Connections < 1 || cfg.Connections > 10_000:
		return errors.New("--connections: want 1 to 10000")
	case cfg.Viewers < int64(cfg.Connections) || cfg.Viewers > 1_000_000:
		return fmt.Errorf("--viewers: want %d, the number of connections, to 1000000", cfg.Connections)
	case cfg.Runs < 1 || cfg.Runs > 100:
		return errors.New("--runs: want 1 to 100")
	case cfg.Duration < 100*time.Millisecond || cfg.Warmup < 0 || cfg.Duration+cfg.Warmup > restingTTL/10:
		return fmt.Errorf("--duration: want 100ms or more, and with --warmup at most %v", restingTTL/10)
	}
	return nil
}

// A Figures is the result of measurements of one kind of call: a value per run.
type Figures struct {
	Rate []float64 // answers per second
	CPU  []float64 // of the node, microseconds per answer
	P50  []float64 // milliseconds
	P99  []float64
}

// A Comparison compares checks with heartbeats on one node.
type Comparison struct {
	Identity         string // how the viewers identify themselves
	Heartbeat, Check Figures
}

// Compare measures checks of running sessions and heartbeats of running streams in turn.
func Compare(ctx context.Context, cfg CheckConfig) ([]Comparison, error) {
	var list []Comparison
	for _, tokens := range []bool{false, true} {
		c, err := cfg.compare(ctx, tokens)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func (cfg CheckConfig) compare(ctx context.Context, tokens bool) (c Comparison, err error) {
	c.Identity = map[bool]string{false: "header", true: "HS256 token in the path"}[tokens]
	n, err := startNode(ctx, cfg.Launch, restingTTL, tokens)
	if err != nil {
		return c, err
	}
	defer func() { err = launch.JoinErrors(err, n.stop(ctx)) }()
	api, closeAPI, err := connections(ctx, n.URL, cfg.Connections)
	if err != nil {
		return c, err
	}
	defer closeAPI()
	edge, closeEdge, err := connections(ctx, "http://"+n.edge, cfg.Connections)
	if err != nil {
		return c, err
	}
	defer closeEdge()

	var failed failures
	heartbeats, checks := make([]request, cfg.Viewers), make([]request, cfg.Viewers)
	load.Plan{Count: cfg.Viewers, Workers: cfg.Connections}.Run(ctx, func(w int, k int64, _ time.Time) {
		var err error
		heartbeats[k], err = n.startStream(api[w], fmt.Sprintf("player-%d", k))
		failed.add(1, err)
		checks[k], err = n.check(fmt.Sprintf("viewer-%d", k))
		failed.add(1, err)
		_, err = checks[k].send(edge[w])
		failed.add(1, err)
	})
	for run := range cfg.Runs {
		kinds := []func(){
			func() { cfg.measure(ctx, n, api, heartbeats, &c.Heartbeat, &failed) },
			func() { cfg.measure(ctx, n, edge, checks, &c.Check, &failed) },
		}
		if run%2 == 1 { // in reverse order, so that a slow change of the machine affects both equally
			slices.Reverse(kinds)
		}
		for _, measure := range kinds {
			if ctx.Err() == nil && failed.err() == nil {
				measure()
			}
		}
	}
	return c, errors.Join(ctx.Err(), failed.err())
}

// startStream starts a stream with a call to the API, and returns its heartbeat.
func (n *node) startStream(c *load.Conn, user string) (heartbeat request, err error) {
	path := "/api/v1/streams/users/" + user
	token, err := n.token(user, user)
	if err != nil {
		return request{}, err
	}
	body, err := request{method: []byte("POST"), path: []byte(path + "/start"), token: token}.send(c)
	if err != nil {
		return request{}, err
	}
	id, ok := load.Text(body, `"id":`)
	if !ok {
		return request{}, fmt.Errorf("start: the answer has no id: %.200s", body)
	}
	return request{method: []byte("POST"), path: []byte(path + "/streams/" + string(id) + "/heartbeat")}, nil
}

// measure sends the requests in turn, as fast as they are answered, and adds a run to out.
func (cfg CheckConfig) measure(ctx context.Context, n *node, cs []*load.Conn, rs []request, out *Figures, failed *failures) {
	var series *load.Series // nil during the warm-up
	do := func(w int, k int64, due time.Time) {
		_, err := rs[k%int64(len(rs))].send(cs[w])
		failed.add(1, err)
		if now := time.Now(); series != nil && err == nil {
			series.Add(now, now.Sub(due), 1)
		}
	}
	if cfg.Warmup > 0 {
		load.Plan{Duration: cfg.Warmup, Workers: len(cs)}.Run(ctx, do)
	}
	series = load.NewSeries(time.Now(), time.Second)
	before := n.Usage()
	load.Plan{Duration: cfg.Duration, Workers: len(cs)}.Run(ctx, do)
	used, sum := n.Usage().CPU-before.CPU, series.Summary()
	if sum.Count == 0 {
		failed.add(1, errors.New("no request was answered"))
		return
	}
	out.Rate = append(out.Rate, float64(sum.Count)/sum.Took.Seconds())
	out.CPU = append(out.CPU, float64(used.Microseconds())/float64(sum.Count))
	out.P50 = append(out.P50, millis(sum.Quantile(50)))
	out.P99 = append(out.P99, millis(sum.Quantile(99)))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Table returns the figures as rows, of which the first has the headings. A ratio is the median of
// the ratios of the runs, with the minimum and the maximum.
func Table(list []Comparison) [][]string {
	rows := [][]string{{"identity", "call", "per second", "node CPU", "p50", "p99"}}
	for _, c := range list {
		for _, of := range []struct {
			name string
			Figures
		}{{"heartbeat", c.Heartbeat}, {"check", c.Check}} {
			rows = append(rows, []string{
				c.Identity, of.name, fmt.Sprintf("%.0f", median(of.Rate)), fmt.Sprintf("%.1f us", median(of.CPU)),
				fmt.Sprintf("%.2f ms", median(of.P50)), fmt.Sprintf("%.2f ms", median(of.P99)),
			})
		}
		rows = append(rows, []string{
			c.Identity, "check / heartbeat", spread(c.Heartbeat.Rate, c.Check.Rate), spread(c.Heartbeat.CPU, c.Check.CPU),
		})
	}
	return rows
}

// spread describes the ratios of the values of the runs.
func spread(by, of []float64) string {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i] / by[i]
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
