// Command streamcount-bench measures a streamcount node under load over HTTP, and
// compares it with peers that serve the same calls.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"streamcount/internal/bench"
	"streamcount/internal/bench/peer"
	"streamcount/internal/display"
	"streamcount/internal/manpage"
)

// The exit codes, which the help of the root command documents.
const (
	exitOK = iota
	exitError
	exitUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// An app is one run of the program.
type app struct {
	environ     []string
	out, errOut io.Writer
}

// run executes the command line args and returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	a := &app{environ: environ, out: stdout, errOut: stderr}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	text, code := err.Error(), exitError
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	if _, ok := errors.AsType[usageError](err); ok {
		code = exitUsage
	}
	_, _ = fmt.Fprintf(stderr, "streamcount-bench: %s\n", display.Printable(text)) // a write error cannot be reported
	return code
}

func (a *app) root() *cobra.Command {
	var peers []string
	for _, name := range peer.Names() {
		peers = append(peers, fmt.Sprintf("  %-14s %s", name, peer.About(name)))
	}
	root := &cobra.Command{
		Use:   "streamcount-bench",
		Short: "Measure a streamcount node under load",
		Long: `Measure a streamcount node under load over HTTP. Each scenario starts a node on an
empty directory and removes the directory afterwards, or drives a running node
(--server). The answers are checked: a lost stream, a count over the limit or a
wrong refusal is reported, and the exit code is then 1.

With --rate R requests arrive at a constant rate, however slowly they are answered,
and latency is measured from the time at which a request is due (open loop). With
--rate max each connection sends its next request when it has the answer to the
previous one (closed loop).

Peers serve the same calls and are measured in turn:
` + strings.Join(peers, "\n") + `

Exit codes: 0 done, 1 error or failed check, 2 wrong usage.`,
		Example: `  streamcount-bench lifecycle --peer redis --peer naive
  streamcount-bench startstorm --viewers 20000 --over 5s --out plots
  streamcount-bench soak --viewers 1000000 --duration 5m --restart --json`,
		Version:       version(),
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2, // set here because Args runs before cobra sets its default

		Args: knownScenario,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("streamcount-bench {{.Version}}\n")
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	for _, s := range bench.Scenarios() {
		root.AddCommand(a.scenarioCommand(s))
	}
	root.AddCommand(a.attackCommand(), a.edgeCommand(), a.peerCommand(), manCommand())
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	return root
}

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Hidden: true, Args: exactArgs(1),
		Short: "Write the manual pages",
		RunE: func(cmd *cobra.Command, args []string) error {
			return manpage.Write(cmd.Root(), args[0], "streamcount-bench", []string{
				exitOK: "Done.", exitError: "An error, or a failed check of the node.", exitUsage: "Wrong usage.",
			})
		},
	}
}

// version describes the build of this program.
func version() string {
	text := "(unknown version)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		text = info.Main.Version
	}
	return fmt.Sprintf("%s (%s, %s/%s)", text, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// knownScenario rejects the name of a scenario that does not exist.
func knownScenario(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, s := range bench.Scenarios() {
		names = append(names, s.Name)
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf(" (did you mean %s?)", near[0])
	}
	return usageError{fmt.Errorf("there is no scenario %q%s: the scenarios are %s", args[0], hint, strings.Join(names, ", "))}
}

// exactArgs accepts n arguments.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("want %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
		}
		return nil
	}
}

// A usageError is an error in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }
