package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"streamcount/internal/top"
)

// minLook is as often as top may ask a node.
const minLook = 200 * time.Millisecond

func (a *app) topCommand() *cobra.Command {
	cfg := top.Config{Explain: a.explain}
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the service: totals, the last hour, users, regions, nodes, etcd",
		Long: `Watch the service: its totals, how streams, starts and refusals went over the last
hour, and its busiest users, regions, nodes and etcd members. The key ? shows the
keys. It asks again by itself when the server does not answer, and says how old
what it shows is.

Where the output is no terminal, or with --once or --json, it prints what it knows
once and ends.`,
		Example: `  streamcount top
  streamcount top --prefix family- --every 5s
  streamcount top --json | jq .stats.rates`,
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Every < minLook {
				return usageError{fmt.Errorf("--every %v: want %v or more", cfg.Every, minLook)}
			}
			return a.top(cmd, cfg, once || a.json || !a.screen.Terminal)
		},
	}
	cmd.Flags().DurationVar(&cfg.Every, "every", time.Second, "how often to ask the server")
	cmd.Flags().StringVar(&cfg.Prefix, "prefix", "", "show only users whose ids begin with this `text`")
	cmd.Flags().BoolVar(&once, "once", false, "print what is known now, and end")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) top(cmd *cobra.Command, cfg top.Config, once bool) (err error) {
	ctx := cmd.Context()
	c, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, c.Close(context.WithoutCancel(ctx))) }()
	cfg.Source, cfg.Server, cfg.Screen = c, redacted(a.server), a.screen
	if !once {
		return top.Run(ctx, cfg, a.in, a.out, a.environ)
	}
	seen, err := top.Look(ctx, c, cfg.Prefix)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(seen)
	}
	return a.printf("%s", top.Text(seen, cfg))
}
