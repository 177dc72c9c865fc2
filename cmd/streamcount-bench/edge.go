package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"streamcount/internal/bench/edge"
	"streamcount/internal/bench/launch"
	"streamcount/internal/display"
)

func (a *app) edgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "edge", Short: "Measure the checks that proxies send for the requests of players",
		Long: "Measure the checks that proxies send for the requests of players. Each command starts a node with an edge\n" +
			"on an empty directory and removes the directory afterwards.",
		Example: "  streamcount-bench edge check\n  streamcount-bench edge viewers --viewers 20000 --segment 4s --proxy nginx",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.edgeCheckCommand(), a.edgeViewersCommand())
	return cmd
}

func (a *app) edgeCheckCommand() *cobra.Command {
	var cfg edge.CheckConfig
	var binary string
	cmd := &cobra.Command{
		Use: "check", Short: "Compare checks of running sessions with heartbeats of running streams", Args: exactArgs(0),
		Long: "Compare checks of running sessions with heartbeats of running streams. Both are sent in turn to one node, over\n" +
			"the same number of connections, as fast as they are answered, and neither renews a stream. A first node reads\n" +
			"the user and the session from headers. A second one verifies an HS256 token in the path; its heartbeats present\n" +
			"the id of the stream. The exit code is 1 if a call failed.",
		Example: "  streamcount-bench edge check --runs 5 --duration 3s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Check(); err != nil {
				return usageError{err}
			}
			version, remove, err := a.edgeLauncher(cmd, &cfg.Launch, binary)
			defer remove()
			if err != nil {
				return err
			}
			list, err := edge.Compare(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return a.printEdge(cmd, version, edge.Table(list))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Int64Var(&cfg.Viewers, "viewers", 2000, "number of sessions, and of streams")
	f.DurationVar(&cfg.Duration, "duration", 3*time.Second, "how long each measurement takes")
	f.DurationVar(&cfg.Warmup, "warmup", time.Second, "how long to run before each measurement")
	f.IntVar(&cfg.Connections, "connections", 128, "number of connections")
	f.IntVar(&cfg.Runs, "runs", 5, "number of measurements of each call; figures are medians")
	edgeFlags(f, &cfg.Launch, &binary)
	return cmd
}

func (a *app) edgeViewersCommand() *cobra.Command {
	var cfg edge.ViewersConfig
	var binary string
	cmd := &cobra.Command{
		Use: "viewers", Short: "Measure viewers who request a segment every few seconds", Args: exactArgs(0),
		Long: "Measure viewers who request a segment every few seconds, each with an HS256 token in the path. Their first\n" +
			"requests start their streams. Latency is measured from the time at which a request is due (open loop). With\n" +
			"--proxy nginx, the requests are sent to an nginx with the configuration in deploy/edge, which fails closed and\n" +
			"serves a file of 1 KiB; otherwise the checks are sent to the node. The exit code is 1 if a request was not\n" +
			"allowed, or a viewer does not have exactly one stream at the end.",
		Example: "  streamcount-bench edge viewers --viewers 20000 --segment 4s --proxy nginx",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Check(); err != nil {
				return usageError{err}
			}
			version, remove, err := a.edgeLauncher(cmd, &cfg.Launch, binary)
			defer remove()
			if err != nil {
				return err
			}
			report, err := edge.RunViewers(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if err := a.printEdge(cmd, version, report.Table(), report.CostTable()); err != nil {
				return err
			}
			return report.Failed
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Int64Var(&cfg.Viewers, "viewers", 20_000, "number of viewers")
	f.DurationVar(&cfg.Segment, "segment", 4*time.Second, "interval between the requests of a viewer")
	f.DurationVar(&cfg.Ramp, "ramp", 20*time.Second, "time over which the viewers arrive")
	f.DurationVar(&cfg.Duration, "duration", time.Minute, "how long to measure after that")
	f.IntVar(&cfg.Connections, "connections", 256, "maximum number of requests in flight")
	f.StringVar(&cfg.Proxy, "proxy", "", "`name` of a proxy in front of the node: nginx (default none)")
	f.StringVar(&cfg.ProxyConfig, "proxy-config", "deploy/edge/nginx.conf", "`file` with the configuration of the proxy")
	edgeFlags(f, &cfg.Launch, &binary)
	return cmd
}

// edgeFlags adds the flags that both commands have.
func edgeFlags(f *pflag.FlagSet, cfg *launch.Config, binary *string) {
	f.StringVar(binary, "binary", "", "`path` of the streamcount binary to measure (default: beside this binary, then in PATH)")
	f.StringVar(&cfg.Dir, "dir", "", "`directory` for temporary data, which should be on a disk "+
		"(default: the system's directory for temporary files)")
}

// edgeLauncher completes cfg, and returns the version of the node. remove deletes a binary that it
// has built.
func (a *app) edgeLauncher(cmd *cobra.Command, cfg *launch.Config, binary string) (version string, remove func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", func() {}, fmt.Errorf("find the path of this program: %w", err)
	}
	cfg.Env, cfg.Stderr = withoutSettings(a.environ), a.errOut
	if cfg.NodeBinary, remove, err = findNode(cmd.Context(), binary, self); err != nil {
		return "", remove, err
	}
	version, err = nodeVersion(cmd.Context(), cfg.NodeBinary)
	return version, remove, err
}

// printEdge prints tables.
func (a *app) printEdge(cmd *cobra.Command, version string, tables ...[][]string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", display.Printable(strings.Join(commandLine(cmd), " ")), display.Printable(version))
	for _, rows := range tables {
		b.WriteByte('\n')
		for _, line := range (display.Table{Rows: rows}).Lines(display.ScreenOf(a.out, a.environ)) {
			fmt.Fprintf(&b, "%s\n", line)
		}
	}
	if _, err := fmt.Fprint(a.out, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
