package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"streamcount/api/apitype"
	"streamcount/client"
)

const (
	// completionTimeout limits how long a shell waits for a server.
	completionTimeout = time.Second
	maxCompletions    = 100
)

// A completer returns the completions of a word that begins with toComplete. args are the
// arguments before it.
type completer = cobra.CompletionFunc

// completeWords completes one of some words. The text after a tab describes the word.
func completeWords(words ...string) completer {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

func noCompletion(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// flagChoices are the values of flags that accept one of a few words, for all commands.
var flagChoices = map[string][]string{
	"on-limit":   {"deny\treject the start", "replace-oldest\tend the oldest stream"},
	"on-outage":  {"deny\treject starts while etcd is unavailable", "admit\tadmit starts by the local replica"},
	"count":      {"streams", "content\tstreams of the same content once", "devices\tstreams on the same device once"},
	"log-level":  {"debug", "info", "warn", "error"},
	"log-format": {"text", "json"},
	"scope":      {"all", "read", "operator\teverything except starts"},
}

// addCompletions sets the completions of arguments and flags of cmd and its subcommands.
func (a *app) addCompletions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.addCompletions(sub)
	}
	// Cobra completes the names of subcommands.
	if cmd.ValidArgsFunction == nil && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = a.argumentCompleter(cmd.Use)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if complete := a.flagCompleter(f); complete != nil {
			// It fails only if the flag has a completion already.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
		}
	})
}

// argumentCompleter completes the arguments in the usage line of a command.
func (a *app) argumentCompleter(use string) completer {
	words := strings.Fields(use)
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args)+1 >= len(words) {
			return noCompletion(cmd, args, toComplete)
		}
		switch strings.Trim(words[len(args)+1], "[]") {
		case "USER":
			return a.completeUsers(cmd, args, toComplete)
		case "PLAN":
			return a.completePlans(cmd, args, toComplete)
		case "ID":
			return a.completeStreams(cmd, args, toComplete)
		case "DIR":
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		return noCompletion(cmd, args, toComplete)
	}
}

// flagCompleter completes the value of a flag. It returns nil for file names, which the shell
// completes.
func (a *app) flagCompleter(f *pflag.Flag) completer {
	if words := flagChoices[f.Name]; words != nil {
		return completeWords(words...)
	}
	switch f.Name {
	case "plan":
		return a.completePlans
	case "user":
		return a.completeUsers
	case "replaces":
		return a.completeStreams
	case "prefix":
		return a.completeUsers
	}
	switch kind, _ := pflag.UnquoteUsage(f); kind {
	case "user":
		return a.completeUsers
	case "file":
		return nil
	case "directory":
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
	}
	return noCompletion
}

// queryServer calls the server for a completion. If the call fails, there are no completions
// and no error is printed.
func queryServer[T any](a *app, cmd *cobra.Command, call func(context.Context, *client.Client) (T, error)) (T, bool) {
	var none T
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	c, err := a.client(cmd, 0)
	if err != nil {
		return none, false
	}
	defer func() { _ = c.Close(ctx) }() // the client has no stream
	answer, err := call(ctx, c)
	return answer, err == nil
}

func (a *app) completeUsers(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	list, _ := queryServer(a, cmd, func(ctx context.Context, c *client.Client) (apitype.TopUsers, error) {
		return c.TopUsers(ctx, prefix, maxCompletions)
	})
	var words []string
	for _, u := range list.Users {
		words = append(words, fmt.Sprintf("%s\t%d of %d streams", printable(u.UserID), u.Streams, u.Limit))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completePlans(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	list, _ := queryServer(a, cmd, func(ctx context.Context, c *client.Client) ([]apitype.Plan, error) { return c.Plans(ctx) })
	var words []string
	for _, p := range list {
		if strings.HasPrefix(p.Name, prefix) {
			words = append(words, printable(p.Name)+"\t"+planText(p.PlanRule))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeStreams completes ids of streams of the user in the first argument.
func (a *app) completeStreams(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	user, _ := queryServer(a, cmd, func(ctx context.Context, c *client.Client) (apitype.User, error) {
		return c.List(ctx, args[0])
	})
	var words []string
	for _, s := range user.Active {
		if s.ID != "" && strings.HasPrefix(s.ID, prefix) {
			about := withDetails(formatDevice(s.Device), formatContent(s.Content), s.Region)
			words = append(words, printable(s.ID)+"\t"+printable(about))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
