package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/cluster"
	"streamcount/internal/bench"
	"streamcount/internal/bench/launch"
	"streamcount/internal/bench/peer"
	"streamcount/internal/display"
)

// benchFlags are the flags of a scenario that are not settings of its load.
type benchFlags struct {
	peers   []string
	server  string
	binary  string
	against string
	etcd    []string
	dir     string
	out     string
	json    bool
}

func (a *app) scenarioCommand(s bench.Scenario) *cobra.Command {
	set, flags := s.Defaults, benchFlags{}
	cmd := &cobra.Command{
		Use: s.Name, Short: s.Short, Long: s.Short + ".\n\n" + s.Long, Args: exactArgs(0),
		Example: "  streamcount-bench " + s.Name + " --runs 3 --peer redis --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	f.StringVar(&flags.server, "server", "", "`URL` of a running node to measure, instead of starting one")
	f.StringVar(&flags.binary, "binary", "", "`path` of the streamcount binary to measure "+
		"(default: beside this binary, then in PATH)")
	f.StringVar(&flags.against, "against", "", "`path` of another streamcount binary to measure in the same runs, as the target base")
	f.StringSliceVar(&flags.etcd, "etcd-endpoints", nil,
		"`addresses` of an etcd for the targets, instead of an embedded etcd")
	f.StringVar(&flags.dir, "dir", "", "`directory` for the targets' temporary data, which should be on a disk "+
		"(default: the system's directory for temporary files)")
	f.StringVar(&flags.out, "out", "", "`directory` to write plots to, as SVG")
	f.BoolVar(&flags.json, "json", false, "print JSON")
	// Registration fails only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("peer", cobra.FixedCompletions(peer.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagFilename("binary")
	_ = cmd.MarkFlagFilename("against")
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.MarkFlagDirname("out")
	return cmd
}

// settingFlags returns the flags of all settings. Each scenario takes those that it uses.
func settingFlags(s *bench.Settings) *pflag.FlagSet {
	f := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	f.Var((*rateFlag)(&s.Rate), "rate", "arrivals per second, or max for as many as the target answers")
	f.DurationVar(&s.Duration, "duration", s.Duration, "how long to measure")
	f.DurationVar(&s.Warmup, "warmup", s.Warmup, "how long to run before measuring")
	f.Int64Var(&s.Users, "users", s.Users, "number of users, who take turns")
	f.Int64Var(&s.Viewers, "viewers", s.Viewers, "number of concurrent streams")
	f.Int64Var(&s.PerUser, "per-user", s.PerUser, "number of viewers that belong to one user")
	f.DurationVar(&s.Over, "over", s.Over, "time over which the requests of all viewers are spread")
	f.DurationVar(&s.Heartbeat, "heartbeat", s.Heartbeat, "interval between a viewer's heartbeats")
	f.IntVar(&s.Batch, "batch", s.Batch, "heartbeats per request, up to 1000; 1 uses the call for a single heartbeat")
	f.DurationVar(&s.Session, "session", s.Session, "mean time until a viewer's stream ends; 0s for no end")
	f.Float64Var(&s.SwitchShare, "switch", s.SwitchShare, "`share` of ended streams whose viewer starts another one in its place")
	f.Float64Var(&s.OtherStarts, "others", s.OtherStarts, "starts and stops of other users per `second`")
	f.DurationVar(&s.FillTimeout, "fill-timeout", s.FillTimeout, "maximum time to start the streams of one step")
	f.BoolVar(&s.Restart, "restart", s.Restart, "restart the node at the end and measure how long that takes")
	f.IntVar(&s.Connections, "connections", s.Connections, "maximum number of requests in flight")
	f.IntVar(&s.Runs, "runs", s.Runs, "number of runs per target; figures are medians of the runs")
	f.IntVar(&s.Limit, "limit", s.Limit, "maximum number of concurrent streams per user on the targets")
	f.DurationVar(&s.TTL, "ttl", s.TTL, "how long a stream keeps its slot on the targets after its last heartbeat")
	return f
}

// rateFlag is the value of --rate, 0 for max.
type rateFlag float64

// String returns the value as the flag accepts it.
func (r *rateFlag) String() string {
	if *r == 0 {
		return "max"
	}
	return strconv.FormatFloat(float64(*r), 'f', -1, 64)
}

// Type names the value in the help.
func (r *rateFlag) Type() string { return "rate" }

// Set parses a number, or max.
func (r *rateFlag) Set(text string) error {
	if text == "max" {
		*r = 0
		return nil
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x > 0) {
		return errors.New("want max, or arrivals per second such as 500")
	}
	*r = rateFlag(x)
	return nil
}

// bench runs a benchmark and prints its report.
func (a *app) bench(cmd *cobra.Command, s bench.Scenario, set bench.Settings, flags benchFlags) error {
	ctx := cmd.Context()
	cfg := bench.Config{Scenario: s, Settings: set, Server: flags.server, Against: flags.against, Progress: a.progress()}
	for _, name := range flags.peers {
		if err := peer.Check(name); err != nil {
			return usageError{fmt.Errorf("--peer: %w", err)}
		}
		cfg.Peers = append(cfg.Peers, bench.Target{Name: name, EnforcesLimit: peer.EnforcesLimit(name)})
	}
	for _, name := range []string{"limit", "ttl"} {
		if flags.server != "" && cmd.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s: cannot be combined with --server: a running node has its own", name)}
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the path of this program: %w", err)
	}
	cfg.Launch = launch.Config{
		PeerBinary: self, Env: withoutSettings(a.environ), Dir: flags.dir, Etcd: flags.etcd, Stderr: a.errOut,
		DeleteKeys: func(ctx context.Context, prefix string) error { return deleteKeys(ctx, flags.etcd, prefix) },
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	var node, base string
	if cfg.Server == "" {
		path, remove, err := findNode(ctx, flags.binary, self)
		if err != nil {
			return err
		}
		defer remove()
		cfg.Launch.NodeBinary = path
		if node, err = nodeVersion(ctx, path); err != nil {
			return err
		}
	}
	if flags.against != "" {
		if cfg.Against, err = exec.LookPath(flags.against); err != nil {
			return usageError{fmt.Errorf("--against: %w", err)}
		}
		if base, err = nodeVersion(ctx, cfg.Against); err != nil {
			return err
		}
	}
	report, err := bench.Run(ctx, cfg)
	if err != nil {
		return err
	}
	report.Version, report.BaseVersion, report.Command = node, base, commandLine(cmd)
	// An error in one output does not suppress the others.
	return errors.Join(a.printReport(report, flags.json), writePlots(flags.out, report), verdict(report))
}

// commandLine returns the command that repeats the benchmark.
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

// withoutSettings returns environ without the variables that configure a node.
func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool { return strings.HasPrefix(e, "STREAMCOUNT_") })
}

// deleteKeys deletes the keys below prefix that a target wrote. Its leases expire.
func deleteKeys(ctx context.Context, endpoints []string, prefix string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("delete the keys below %s: %w", prefix, err)
		}
	}()
	c, err := cluster.Connect(ctx, cluster.ClientConfig{Endpoints: endpoints, Prefix: prefix})
	if err != nil {
		return err
	}
	_, err = c.Delete(ctx, prefix+"/", clientv3.WithPrefix())
	if closeErr := c.Close(); !errors.Is(closeErr, context.Canceled) { // a closed client reports its own context
		err = errors.Join(err, closeErr)
	}
	return err
}

func (a *app) progress() *bench.Progress {
	screen := display.ScreenOf(a.errOut, a.environ)
	return &bench.Progress{
		Write:    func(line string) { _, _ = io.WriteString(a.errOut, line) }, // a benchmark does not depend on its progress line
		Terminal: screen.Terminal, Width: screen.Width,
	}
}
