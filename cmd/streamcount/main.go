// Command streamcount limits the number of concurrent video streams of each user.
// "streamcount serve" runs the service. Most other commands are clients of the service.
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

	"streamcount/internal/config"
	"streamcount/internal/display"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// An app is one invocation of the program.
type app struct {
	environ     []string
	in          io.Reader
	out, errOut io.Writer
	screen      display.Screen // the terminal of out
	server      string         // --server of client commands
	keyFile     string
	plaintext   bool // allow sending the key without TLS
	json        bool
}

// run executes the command in args, and returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	a := &app{environ: environ, in: os.Stdin, out: stdout, errOut: stderr, screen: display.ScreenOf(stdout, environ)}
	root := a.root()
	root.SetArgs(joinEveryFlag(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if a.json {
		a.printProblem(err)
	}
	// An error of stderr cannot be reported.
	_, _ = fmt.Fprintf(stderr, "streamcount: %s\n", printable(a.explain(err)))
	return exitCode(err)
}

const longHelp = `streamcount limits the number of concurrent video streams of each user.

"streamcount serve" without flags runs a complete service on 127.0.0.1:3000, with
an embedded etcd. Most other commands are clients of a running service.

Exit codes: 0 success, 1 error, 2 invalid usage or configuration, 3 the limit of
the user is reached, 4 the stream has ended, or the stream, user or plan was not
found.`

// exitTexts are the descriptions of the exit codes in the manual pages.
var exitTexts = [...]string{
	exitOK:       "Success.",
	exitError:    "An error. It is printed as one line to the standard error.",
	exitUsage:    "Invalid usage or configuration.",
	exitLimit:    "The limit of the user is reached.",
	exitNotFound: "The stream has ended, or the stream, user or plan was not found.",
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "streamcount",
		Short:         "Limit the number of concurrent video streams of each user",
		Long:          longHelp,
		Version:       buildVersion().String(),
		SilenceErrors: true, // run prints errors
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,

		Args: knownCommand,
		Example: `  streamcount serve --demo
  streamcount start maya --device-name "Living room TV"
  streamcount top`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return config.FlagError(cmd.CommandPath(), cmd.Flags(), err)
	})
	root.AddCommand(
		a.serveCommand(), a.configCommand(), a.shardsCommand(), a.secretCommand(),
		a.startCommand(), a.heartbeatCommand(), a.stopCommand(), a.endCommand(), a.lsCommand(), a.topCommand(), a.watchCommand(),
		a.limitsCommand(), a.plansCommand(), a.usersCommand(), a.keysCommand(), a.tokensCommand(), a.authCommand(), a.edgeCommand(), a.healthCommand(), a.versionCommand(),
		a.manCommand(),
	)
	root.SetOut(a.out) // before the completion command is added, which copies it
	root.SetErr(a.errOut)
	root.InitDefaultCompletionCmd()
	a.addCompletions(root)
	return root
}

func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf(": did you mean %q?", near[0])
	}
	return usageError{fmt.Errorf("%s (see streamcount --help)", text)}
}

// argRange accepts from lo to hi arguments.
func argRange(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < lo || len(args) > hi {
			return usageError{fmt.Errorf("usage: %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
		}
		return nil
	}
}

// A usageError is an invalid command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// isUsage reports whether err is about the command line or the configuration.
func isUsage(err error) bool {
	_, usage := errors.AsType[usageError](err)
	_, configuration := errors.AsType[config.Error](err)
	return usage || configuration
}
