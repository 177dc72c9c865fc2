package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"streamcount/internal/config"
	"streamcount/internal/top"
)

// minTopInterval is the minimum of --every.
const minTopInterval = 200 * time.Millisecond

func (a *app) topCommand() *cobra.Command {
	cfg := top.Config{Explain: a.explain}
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Monitor the service: totals, the last hour, users, regions, nodes, etcd, limits",
		Long: `Monitor the service: totals, the streams, starts and refusals of the last hour, the
users with the most streams, regions, nodes, etcd members and refusals by limit.
Press ? to show the keys. If the server is unavailable, the command retries and
shows the age of the values.

If the output is not a terminal, or with --once or --json, the command prints the
current values once and exits.`,
		Example: `  streamcount top
  streamcount top --prefix family- --every 5s
  streamcount top --json | jq .stats.rates`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Every < minTopInterval {
				return usageError{fmt.Errorf("--every %v: want %v or more", cfg.Every, minTopInterval)}
			}
			return a.top(cmd, cfg, once || a.json || !a.screen.Terminal)
		},
	}
	cmd.Flags().DurationVar(&cfg.Every, "every", time.Second, "interval of requests to the server, 200ms or more")
	cmd.Flags().StringVar(&cfg.Prefix, "prefix", "", "show only users whose ids begin with this `text`")
	cmd.Flags().BoolVar(&once, "once", false, "print the current values once and exit")
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
	cfg.Source, cfg.Server, cfg.Screen = c, config.RedactServer(a.server), a.screen
	if !once {
		return top.Run(ctx, cfg, a.in, a.out, a.environ)
	}
	snapshot, err := top.Fetch(ctx, c, cfg.Prefix)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(snapshot)
	}
	return a.printf("%s", top.Text(snapshot, cfg))
}
