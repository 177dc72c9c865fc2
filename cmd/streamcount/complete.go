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
	"streamcount/internal/bench/peer"
)

const (
	// completeTime bounds how long a shell waits for what a server says.
	completeTime = time.Second
	mostComplete = 100
)

// A completer says what a word that begins with toComplete may become, args being
// the words before it.
type completer = cobra.CompletionFunc

// choices completes to one of some words; what is behind a tab explains it.
func choices(words ...string) completer {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// flagChoices are the flags that take one of a few values, whatever the command.
var flagChoices = map[string][]string{
	"on-limit":   {"deny\trefuse the start", "replace-oldest\tend the oldest stream"},
	"on-outage":  {"deny\trefuse starts while etcd is away", "admit\ton what the node knows"},
	"count":      {"streams", "content\tstreams of the same content once", "devices\tstreams on the same device once"},
	"log-level":  {"debug", "info", "warn", "error"},
	"log-format": {"text", "json"},
	"scope":      {"all", "read", "operator\teverything but starts"},
}

// addCompletions tells cmd and those below it what their arguments and flags may be.
func (a *app) addCompletions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.addCompletions(sub)
	}
	// For commands that have others below them, cobra offers those.
	if cmd.ValidArgsFunction == nil && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = a.arguments(cmd.Use)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if complete := a.flagValues(f); complete != nil {
			// It fails only where a flag has one already.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
		}
	})
}

// arguments completes what a command's use line asks for.
func (a *app) arguments(use string) completer {
	words := strings.Fields(use)
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args)+1 >= len(words) {
			return nothing(cmd, args, toComplete)
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
		return nothing(cmd, args, toComplete)
	}
}

// flagValues completes a flag's value, or is nil to leave it to the shell, which
// knows files.
func (a *app) flagValues(f *pflag.Flag) completer {
	if words := flagChoices[f.Name]; words != nil {
		return choices(words...)
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
	case "peer":
		return choices(peer.Names()...)
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
	return nothing
}

// ask makes one quick call of the server for a completion. Where it fails there is
// nothing to offer, and nobody to tell.
func ask[T any](a *app, cmd *cobra.Command, call func(context.Context, *client.Client) (T, error)) (T, bool) {
	var none T
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	c, err := a.client(cmd, 0)
	if err != nil {
		return none, false
	}
	defer func() { _ = c.Close(ctx) }() // it keeps no stream
	answer, err := call(ctx, c)
	return answer, err == nil
}

func (a *app) completeUsers(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	list, _ := ask(a, cmd, func(ctx context.Context, c *client.Client) (apitype.BusiestUsers, error) {
		return c.BusiestUsers(ctx, prefix, mostComplete)
	})
	var words []string
	for _, u := range list.Users {
		words = append(words, fmt.Sprintf("%s\t%d of %d streams", printable(u.UserID), u.Streams, u.Limit))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completePlans(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	list, _ := ask(a, cmd, func(ctx context.Context, c *client.Client) ([]apitype.Plan, error) { return c.Plans(ctx) })
	var words []string
	for _, p := range list {
		if strings.HasPrefix(p.Name, prefix) {
			words = append(words, printable(p.Name)+"\t"+planText(p.PlanRule))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeStreams offers the streams of the user that is the first argument.
func (a *app) completeStreams(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	user, _ := ask(a, cmd, func(ctx context.Context, c *client.Client) (apitype.User, error) {
		return c.List(ctx, args[0])
	})
	var words []string
	for _, s := range user.Active {
		if strings.HasPrefix(s.ID, prefix) {
			about := joined(device(s.Device), content(s.Content), s.Region)
			words = append(words, printable(s.ID)+"\t"+printable(about))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
