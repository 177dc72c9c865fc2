package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	a.addJSONFlag(cmd)
	return cmd
}

func (a *app) shardsStatusCommand() *cobra.Command {
	return a.shardsSubcommand(&cobra.Command{
		Use:   "status",
		Short: "Show the shards, and how far a move is",
		Example: `  streamcount shards status --shard a=http://a:2379
  streamcount shards status --etcd-endpoints http://etcd-1:2379 --json`,
	}, false, a.shardsStatus)
}

// shardMap is what shards status shows.
type shardMap struct {
	Epoch  int64         `json:"epoch"`
	From   []string      `json:"from,omitempty"` // while users are moving
	Shards []string      `json:"shards"`
	Each   []shardStatus `json:"each"`
}

// shardStatus is one of the shards.
type shardStatus struct {
	Name      string   `json:"name"`
	Users     int      `json:"users"`
	Streams   int      `json:"streams"`
	ToLeave   int      `json:"toLeave"` // users who are to live on another
	Endpoints []string `json:"endpoints"`
	Error     string   `json:"error,omitempty"` // why nothing is known of it
}

func (a *app) shardsStatus(ctx context.Context, r *shard.Router, _ shardList) error {
	m := r.Map()
	status := shardMap{Epoch: m.Epoch, From: names(m.From), Shards: names(m.Shards)}
	for _, s := range r.Each() {
		one := shardStatus{Name: s.Name, Endpoints: s.Endpoints}
		err := s.EachUser(ctx, func(user string, n int) {
			one.Users, one.Streams = one.Users+1, one.Streams+n
			if m.Home(user) != s.Name {
				one.ToLeave++
			}
		})
		if err != nil {
			one = shardStatus{Name: s.Name, Endpoints: s.Endpoints, Error: err.Error()}
		}
		status.Each = append(status.Each, one)
	}
	if a.json {
		return a.printJSON(status)
	}
	return a.showShards(status)
}

func (a *app) showShards(m shardMap) error {
	where := "users live on " + joinNames(m.Shards)
	if len(m.From) > 0 {
		where = fmt.Sprintf("users are moving from %s to %s", joinNames(m.From), joinNames(m.Shards))
	}
	if err := a.printf("epoch %d: %s\n", m.Epoch, where); err != nil {
		return err
	}
	rows := [][]string{{"SHARD", "USERS", "STREAMS", "TO LEAVE", "ADDRESSES"}}
	for _, s := range m.Each {
		row := []string{s.Name, fmt.Sprint(s.Users), fmt.Sprint(s.Streams), fmt.Sprint(s.ToLeave), strings.Join(s.Endpoints, ",")}
		if s.Error != "" {
			row = []string{s.Name, "-", "-", "-", strings.Join(s.Endpoints, ",") + " (" + s.Error + ")"}
		}
		rows = append(rows, row)
	}
	return a.printTable(rows, "SHARD")
}

func names(shards []shard.Shard) []string {
	var out []string
	for _, s := range shards {
		out = append(out, s.Name)
	}
	return out
}

func joinNames(names []string) string { return strings.Join(names, ", ") }

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
	plan := []shardWay{}
	for w, n := range users {
		plan = append(plan, shardWay{From: w.from, To: w.to, Users: n, Streams: streams[w]})
	}
	slices.SortFunc(plan, func(a, b shardWay) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	if a.json {
		return a.printJSON(plan)
	}
	rows := [][]string{{"FROM", "TO", "USERS", "STREAMS"}}
	for _, w := range plan {
		row := []string{w.From, w.To, fmt.Sprint(w.Users), fmt.Sprint(w.Streams)}
		if w.From == w.To {
			row[1] = w.To + " (stay)"
		}
		rows = append(rows, row)
	}
	return a.printTable(rows)
}

// A shardWay is how many would move from one shard to another, or stay.
type shardWay struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Users   int    `json:"users"`
	Streams int    `json:"streams"`
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
		if moved = p.Moved; !a.json && p.Moved-shown >= 1000 {
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
	m := r.Map()
	if a.json {
		return a.printJSON(struct {
			Epoch  int64    `json:"epoch"`
			Shards []string `json:"shards"`
			Moved  int64    `json:"moved"` // users, by this command
		}{m.Epoch, names(m.Shards), moved})
	}
	return a.printf("users live on %s (epoch %d): %d moved by this command in %v\n",
		joinNames(names(m.Shards)), m.Epoch, moved, time.Since(began).Round(time.Millisecond))
}
