package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/cluster"
	"streamcount/internal/bench"
	"streamcount/internal/bench/peer"
	"streamcount/internal/display"
)

// benchFlags are what a benchmark is told besides its scenario's settings.
type benchFlags struct {
	peers  []string
	server string
	etcd   []string
	dir    string
	out    string
}

func (a *app) benchCommand() *cobra.Command {
	var peers []string
	for _, name := range peer.Names() {
		peers = append(peers, fmt.Sprintf("  %-14s %s", name, peer.About(name)))
	}
	cmd := &cobra.Command{
		Use:   "bench SCENARIO",
		Short: "Measure a node under load, beside peers",
		Long: `Measure a node under load over real HTTP. Each scenario starts a node on an empty
directory and removes it afterwards, or drives a running one (--server). Every
answer is checked: a lost stream, a count over the limit or a wrong refusal is
shown, and makes the exit code 1.

With --rate R requests come at a constant rate whatever the server does, and
their clocks start when they are due (open loop). With --rate max each
connection sends its next request when it has its answer.

Peers answer the same calls through the same router, and are visited in turn:
` + strings.Join(peers, "\n"),
		Example: `  streamcount bench lifecycle --peer redis --peer naive
  streamcount bench kickoff --viewers 20000 --over 5s --out plots
  streamcount bench soak --viewers 1000000 --duration 5m --restart --json`,
		Args: knownScenario,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, s := range bench.Scenarios() {
		cmd.AddCommand(a.scenarioCommand(s))
	}
	cmd.AddCommand(a.peerCommand())
	return cmd
}

func knownScenario(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, s := range bench.Scenarios() {
		names = append(names, s.Name)
	}
	return usageError{fmt.Errorf("there is no scenario %q%s: the scenarios are %s",
		args[0], suggest(args[0], names), strings.Join(names, ", "))}
}

func (a *app) scenarioCommand(s bench.Scenario) *cobra.Command {
	set, flags := s.Defaults, benchFlags{}
	cmd := &cobra.Command{
		Use: s.Name, Short: s.Short, Long: s.Short + ".\n\n" + s.Long, Args: between(0, 0),
		Example: "  streamcount bench " + s.Name + " --runs 3 --peer redis --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.server = "" // errors are not of a client of it
			err := a.bench(cmd, s, set, flags)
			if bad, ok := errors.AsType[bench.SettingError](err); ok {
				return usageError{bad}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	all := settingFlags(&set)
	for _, name := range s.Uses {
		f.AddFlag(all.Lookup(name))
	}
	for _, name := range []string{"connections", "runs", "limit", "ttl"} {
		f.AddFlag(all.Lookup(name))
	}
	f.StringSliceVar(&flags.peers, "peer", nil, "`name` of a peer to measure in the same runs; may be repeated")
	f.StringVar(&flags.server, "server", "", "`address` of a running node to drive instead of starting one")
	f.StringSliceVar(&flags.etcd, "etcd-endpoints", nil,
		"`addresses` of an etcd for the targets, instead of one of their own")
	f.StringVar(&flags.dir, "dir", "", "`directory` for the targets' data while they run (default the system's, "+
		"which should be on a disk)")
	f.StringVar(&flags.out, "out", "", "`directory` to write plots into, as SVG")
	a.addJSONFlag(cmd)
	return cmd
}

// settingFlags are those of all scenarios; each takes what it uses.
func settingFlags(s *bench.Settings) *pflag.FlagSet {
	f := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	f.Var((*rate)(&s.Rate), "rate", "arrivals a second, or max for as fast as the target answers")
	f.DurationVar(&s.For, "duration", s.For, "how long to measure")
	f.DurationVar(&s.Warmup, "warmup", s.Warmup, "how long to run before that")
	f.Int64Var(&s.Users, "users", s.Users, "how many users take turns")
	f.Int64Var(&s.Viewers, "viewers", s.Viewers, "how many streams are watched at the same time")
	f.Int64Var(&s.PerUser, "per-user", s.PerUser, "how many of the viewers are one user's")
	f.DurationVar(&s.Over, "over", s.Over, "in what time everybody's request is due")
	f.DurationVar(&s.Heartbeat, "heartbeat", s.Heartbeat, "how often a viewer sends one")
	f.IntVar(&s.Batch, "batch", s.Batch, "heartbeats in one request, up to 1000; 1 sends single ones")
	f.DurationVar(&s.Session, "session", s.Session, "how long a viewer watches one thing; 0s for ever")
	f.Float64Var(&s.Zap, "zap", s.Zap, "`share` of the viewers who watch something else afterwards, and do not leave")
	f.Float64Var(&s.Others, "others", s.Others, "starts, and stops, of other users a `second` meanwhile")
	f.BoolVar(&s.Restart, "restart", s.Restart, "at the end start the node anew, and measure how long it takes")
	f.IntVar(&s.Connections, "connections", s.Connections, "how many requests may be in flight")
	f.IntVar(&s.Runs, "runs", s.Runs, "how often each target is measured; figures are medians")
	f.IntVar(&s.Limit, "limit", s.Limit, "streams a user may have on the targets")
	f.DurationVar(&s.TTL, "ttl", s.TTL, "how long a silent stream keeps its slot on the targets")
	return f
}

// rate is the value of --rate, 0 for max.
type rate float64

// String is the value as it is given.
func (r *rate) String() string {
	if *r == 0 {
		return "max"
	}
	return strconv.FormatFloat(float64(*r), 'f', -1, 64)
}

// Type names the values in --help.
func (r *rate) Type() string { return "rate" }

// Set reads a number, or max.
func (r *rate) Set(text string) error {
	if text == "max" {
		*r = 0
		return nil
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x > 0) {
		return errors.New("max, or arrivals a second such as 500")
	}
	*r = rate(x)
	return nil
}

// bench runs a benchmark and prints its report.
func (a *app) bench(cmd *cobra.Command, s bench.Scenario, set bench.Settings, flags benchFlags) error {
	cfg := bench.Config{Scenario: s, Settings: set, Server: flags.server, Progress: a.benchProgress()}
	for _, name := range flags.peers {
		if err := peer.Check(name); err != nil {
			return usageError{fmt.Errorf("--peer: %w", err)}
		}
		cfg.Peers = append(cfg.Peers, bench.Target{Name: name, Counts: peer.Counts(name)})
	}
	for _, name := range []string{"limit", "ttl"} {
		if flags.server != "" && cmd.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s: is the server's own: leave it out", name)}
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cfg.Launch = bench.Launch{
		Exe: exe, Env: withoutOurs(a.environ), Dir: flags.dir, Etcd: flags.etcd, Stderr: a.errOut,
		Clean: func(ctx context.Context, prefix string) error { return cleanEtcd(ctx, flags.etcd, prefix) },
	}
	report, err := bench.Run(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	report.Version, report.Command = buildVersion().String(), commandLine(cmd)
	// Whatever cannot be written, the rest is worth having.
	return errors.Join(a.printReport(report), writePlots(flags.out, report), verdict(report))
}

// commandLine is what repeats the benchmark.
func commandLine(cmd *cobra.Command) []string {
	line := strings.Fields(cmd.CommandPath())
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			line = append(line, "--"+f.Name+"="+v)
		}
	})
	return line
}

// withoutOurs leaves out what would configure the targets otherwise than the
// benchmark says.
func withoutOurs(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool { return strings.HasPrefix(e, envPrefix) })
}

// cleanEtcd removes what a target left. Its leases lapse by themselves.
func cleanEtcd(ctx context.Context, endpoints []string, prefix string) (err error) {
	c, err := cluster.Connect(ctx, cluster.ClientConfig{Endpoints: endpoints, Prefix: prefix})
	if err != nil {
		return fmt.Errorf("remove the keys below %s: %w", prefix, err)
	}
	defer func() { err = errors.Join(err, closeClient(c)) }()
	if _, err := c.Delete(ctx, prefix+"/", clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("remove the keys below %s: %w", prefix, err)
	}
	return nil
}

func (a *app) benchProgress() *bench.Progress {
	screen := display.On(a.errOut, a.environ)
	return &bench.Progress{
		Write:    func(line string) { _, _ = io.WriteString(a.errOut, line) }, // it is only progress
		Terminal: screen.Terminal, Width: screen.Width,
	}
}

func (a *app) printReport(r *bench.Report) error {
	if a.json {
		return a.printJSON(r)
	}
	err := a.printf("%s\non %s\n\n", printable(strings.Join(r.Command, " ")), printable(r.Machine.String()))
	for _, rows := range [][][]string{r.Calls(), r.Goodputs(), r.Compared(), r.Costs(), r.Steadiness()} {
		if rows == nil {
			continue
		}
		if err = errors.Join(err, a.printTable(rows), a.printf("\n")); err != nil {
			return err
		}
	}
	if n := r.Settings["runs"]; n != 1 {
		err = a.printf("Medians of %v runs. A ratio is the median of the runs' own ratios.\n", n)
	}
	return err
}

// verdict is an error if the node did anything wrong.
func verdict(r *bench.Report) error {
	var list []string
	for _, f := range r.Violations() {
		list = append(list, fmt.Sprintf("%d %s (such as: %s)", f.Count, f.Kind, f.Example))
	}
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("the node failed the benchmark's checks: %s", strings.Join(list, "; "))
}

// writePlots writes the report's plots into dir, unless that is "".
func writePlots(dir string, r *bench.Report) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, p := range r.Plots() {
		if err := os.WriteFile(filepath.Join(dir, p.Name), p.SVG, 0o644); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	return nil
}
