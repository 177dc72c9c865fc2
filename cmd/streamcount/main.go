// Command streamcount limits how many video streams each user watches at once.
// "streamcount serve" is the service; the other commands are clients of one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"streamcount/internal/display"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// An app is one run of the program: where it reads from and writes to.
type app struct {
	environ     []string
	in          io.Reader
	out, errOut io.Writer
	screen      display.Screen // of out
	server      string         // of the client commands
	keyFile     string
	json        bool
}

// run does what args say until ctx ends, and returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	a := &app{environ: environ, in: os.Stdin, out: stdout, errOut: stderr, screen: display.On(stdout, environ)}
	root := a.root()
	root.SetArgs(joinEvery(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if a.json {
		a.printProblem(err)
	}
	// Nothing is left to tell about a stderr that cannot be written to.
	_, _ = fmt.Fprintf(stderr, "streamcount: %s\n", printable(a.explain(err)))
	return exitCode(err)
}

const longHelp = `streamcount limits how many video streams each user watches at once.

"streamcount serve" with no flags is a complete service on 127.0.0.1:3000, with
an etcd of its own. The other commands call a running service.

Exit codes: 0 done, 1 error, 2 wrong usage or configuration, 3 the user's limit
is reached, 4 the stream has ended, or there is no such stream or user.`

// exitTexts are the meanings of the exit codes, for the manual.
var exitTexts = [...]string{
	exitOK:    "Done.",
	exitError: "An error, which is one line on the standard error.",
	exitUsage: "Wrong usage or configuration.",
	exitLimit: "The user's limit is reached.",
	exitGone:  "The stream has ended, or there is no such stream, user or plan.",
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "streamcount",
		Short:         "Limit how many video streams each user watches at once",
		Long:          longHelp,
		Version:       buildVersion().String(),
		SilenceErrors: true, // run prints them, once
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,

		Args: knownCommand,
		Example: `  streamcount serve --demo
  streamcount start maya --device-name "Living room TV"
  streamcount top`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		a.serveCommand(), a.configCommand(), a.shardsCommand(),
		a.startCommand(), a.heartbeatCommand(), a.stopCommand(), a.lsCommand(), a.topCommand(), a.watchCommand(),
		a.limitsCommand(), a.plansCommand(), a.keysCommand(), a.benchCommand(), a.healthCommand(), a.versionCommand(),
		a.manCommand(),
	)
	root.SetOut(a.out) // before completion, which remembers it
	root.SetErr(a.errOut)
	root.InitDefaultCompletionCmd()
	a.addCompletions(root)
	return root
}

func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("there is no command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf(": did you mean %q?", near[0])
	}
	return usageError{fmt.Errorf("%s (see streamcount --help)", text)}
}

// between wants from lo to hi arguments.
func between(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < lo || len(args) > hi {
			return usageError{fmt.Errorf("want %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
		}
		return nil
	}
}

// A usageError is a command line or configuration that must be changed.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}
