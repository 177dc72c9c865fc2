package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"streamcount/shard"
)

func (a *app) shardsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shards",
		Short: "Show and change over which etcds users are spread",
		Long: `Show and change over which etcds users are spread. These commands talk to etcd
itself, so they take the flags by which "streamcount serve" reaches it: --shard or
--etcd-endpoints, and --config FILE. One shard of the service is enough: it knows
the others.`,
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.shardsStatusCommand(), a.shardsPlanCommand(), a.shardsMoveCommand())
	return cmd
}

// withRouter runs f on a router as a node has one.
func (a *app) withRouter(ctx context.Context, cfg *Config, f func(context.Context, *shard.Router) error) error {
	if cfg.embedded() {
		return usageError{errors.New("which etcd? name one shard of the service with --shard NAME=ADDRESSES, or the " +
			"only etcd of a service without shards with --etcd-endpoints; an embedded etcd has no others")}
	}
	if len(cfg.Shards) > 1 {
		cfg.Shards = cfg.Shards[:1]
	}
	sink := newLogWriter(a.errOut)
	go sink.run()
	defer sink.close()
	b := &behind{cfg: cfg, logs: newLogs(sink, "warn", cfg.LogFormat)}
	router, err := b.router(false)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	select {
	case <-router.Ready():
		err = f(ctx, router)
	case err = <-done:
		stop()
		return cmp.Or(err, context.Cause(ctx))
	}
	stop()
	return cmp.Or(err, <-done)
}

// shardsSubcommand is one of the commands: run is given a router as a node has one,
// and with aim the shards that users are to live on.
func (a *app) shardsSubcommand(
	cmd *cobra.Command, aim bool, run func(ctx context.Context, r *shard.Router, to shardList) error,
) *cobra.Command {
	var cfg Config
	var to shardList
	flags := cfg.flags()
	cmd.Args = between(0, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := cfg.load(flags, a.environ); err != nil {
			return err
		}
		if err := shard.Check(to); aim && err != nil {
			return usageError{fmt.Errorf("--to: %w", err)}
		}
		return a.withRouter(cmd.Context(), &cfg, func(ctx context.Context, r *shard.Router) error {
			return run(ctx, r, to)
		})
	}
	cmd.Flags().AddFlagSet(flags)
	if aim {
		cmd.Flags().Var(&to, "to", "`NAME=ADDRESSES` of each shard that users are to live on")
	}
	return cmd
}

func (a *app) shardsStatusCommand() *cobra.Command {
	return a.shardsSubcommand(&cobra.Command{
		Use:   "status",
		Short: "Show the shards, and how far a move is",
	}, false, a.shardsStatus)
}

func (a *app) shardsStatus(ctx context.Context, r *shard.Router, _ shardList) error {
	m := r.Map()
	if len(m.From) > 0 {
		if err := a.printf("epoch %d: users are moving from %s to %s\n", m.Epoch, names(m.From), names(m.Shards)); err != nil {
			return err
		}
	} else if err := a.printf("epoch %d: users live on %s\n", m.Epoch, names(m.Shards)); err != nil {
		return err
	}
	rows := [][]string{{"SHARD", "USERS", "STREAMS", "TO LEAVE", "ADDRESSES"}}
	for _, s := range r.Each() {
		users, streams, leaving := 0, 0, 0
		err := s.EachUser(ctx, func(user string, n int) {
			users, streams = users+1, streams+n
			if m.Home(user) != s.Name {
				leaving++
			}
		})
		row := []string{s.Name, fmt.Sprint(users), fmt.Sprint(streams), fmt.Sprint(leaving), strings.Join(s.Endpoints, ",")}
		if err != nil {
			row = []string{s.Name, "-", "-", "-", strings.Join(s.Endpoints, ",") + " (" + err.Error() + ")"}
		}
		rows = append(rows, row)
	}
	return a.printTable(rows)
}

func names(shards []shard.Shard) string {
	var out []string
	for _, s := range shards {
		out = append(out, s.Name)
	}
	return strings.Join(out, ", ")
}

func (a *app) shardsPlanCommand() *cobra.Command {
	return a.shardsSubcommand(&cobra.Command{
		Use:     "plan",
		Short:   "Show what a move to other shards would move",
		Example: `  streamcount shards plan --shard a=http://a:2379 --to a=http://a:2379 --to b=http://b:2379`,
	}, true, a.shardsPlan)
}

func (a *app) shardsPlan(ctx context.Context, r *shard.Router, to shardList) error {
	next := shard.Map{Shards: to}
	type way struct{ from, to string }
	users, streams := map[way]int{}, map[way]int{}
	for _, s := range r.Each() {
		err := s.EachUser(ctx, func(user string, n int) {
			w := way{s.Name, next.Home(user)}
			users[w]++
			streams[w] += n
		})
		if err != nil {
			return fmt.Errorf("shard %s: %w", s.Name, err)
		}
	}
	rows := [][]string{{"FROM", "TO", "USERS", "STREAMS"}}
	ways := slices.SortedFunc(maps.Keys(users), func(a, b way) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	for _, w := range ways {
		row := []string{w.from, w.to, fmt.Sprint(users[w]), fmt.Sprint(streams[w])}
		if w.from == w.to {
			row[1] = w.to + " (stay)"
		}
		rows = append(rows, row)
	}
	return a.printTable(rows)
}

func (a *app) shardsMoveCommand() *cobra.Command {
	return a.shardsSubcommand(&cobra.Command{
		Use:   "move",
		Short: "Spread users over other shards, while the service runs",
		Long: `Spread users over other shards, while the service runs. Nobody exceeds his limit
meanwhile and no stream ends. All nodes must be able to reach the new shards under
the addresses given here; they learn of them by themselves. It may be interrupted,
and is finished by the same command. Start nodes with the new --shard flags after
it has ended.`,
		Example: `  streamcount shards move --shard a=http://a:2379 --to a=http://a:2379 --to b=http://b:2379`,
	}, true, a.shardsMove)
}

func (a *app) shardsMove(ctx context.Context, r *shard.Router, to shardList) error {
	began := time.Now()
	var moved, shown int64
	err := r.Move(ctx, to, func(p shard.Progress) {
		if moved = p.Moved; p.Moved-shown >= 1000 {
			shown = p.Moved
			_ = a.printf("%d users moved, now from %s\n", p.Moved, p.Left) // the move is what matters
		}
	})
	if errors.Is(err, shard.ErrInvalid) {
		return usageError{err}
	}
	if err != nil {
		return fmt.Errorf("the move is not finished, and goes on with the same command: %w", err)
	}
	return a.printf("users live on %s (epoch %d): %d moved by this command in %v\n",
		names(r.Map().Shards), r.Map().Epoch, moved, time.Since(began).Round(time.Millisecond))
}
