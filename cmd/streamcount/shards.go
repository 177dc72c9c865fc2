package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"streamcount/internal/config"
	"streamcount/internal/node"
	"streamcount/shard"
)

func (a *app) shardsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shards",
		Short: "Show and change the etcd clusters over which users are distributed",
		Long: `Show and change the etcd clusters (shards) over which users are distributed. These
commands connect to etcd, so they have the flags of "streamcount serve" that
configure the connection: --shard or --etcd-endpoints, and --config FILE. It is
sufficient to name one shard of the service, because it stores the addresses of
all shards.`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.shardsStatusCommand(), a.shardsPlanCommand(), a.shardsMoveCommand())
	return cmd
}

// shardsSubcommand completes cmd. run is called with a router and, if withTargets is set, the
// value of --to.
func (a *app) shardsSubcommand(
	cmd *cobra.Command, withTargets bool, run func(ctx context.Context, r *shard.Router, to config.ShardList) error,
) *cobra.Command {
	var cfg config.Config
	var to config.ShardList
	flags := cfg.Flags()
	cmd.Args = argRange(0, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := cfg.Load(flags, a.environ); err != nil {
			return err
		}
		if err := shard.Check(to); withTargets && err != nil {
			return usageError{fmt.Errorf("--to: %w", err)}
		}
		return node.WithRouter(cmd.Context(), &cfg, commandActor(), a.errOut, func(ctx context.Context, r *shard.Router) error {
			return run(ctx, r, to)
		})
	}
	cmd.Flags().AddFlagSet(flags)
	if withTargets {
		cmd.Flags().Var(&to, "to", "`NAME=ADDRESSES` of each shard over which users will be distributed; repeat for each shard")
	}
	a.addJSONFlag(cmd)
	return cmd
}

func (a *app) shardsStatusCommand() *cobra.Command {
	return a.shardsSubcommand(&cobra.Command{
		Use:   "status",
		Short: "Show the shards and the progress of a move",
		Example: `  streamcount shards status --shard a=http://a:2379
  streamcount shards status --etcd-endpoints http://etcd-1:2379 --json`,
	}, false, a.shardsStatus)
}

// shardMap is the output of shards status.
type shardMap struct {
	Epoch    int64         `json:"epoch"`
	Previous []string      `json:"previous,omitempty"` // during a move, the previous shards
	Shards   []string      `json:"shards"`
	Each     []shardStatus `json:"each"`
}

// shardStatus is the status of one shard.
type shardStatus struct {
	Name      string   `json:"name"`
	Users     int      `json:"users"`
	Streams   int      `json:"streams"`
	ToMove    int      `json:"toMove"` // users who belong to another shard
	Endpoints []string `json:"endpoints"`
	Error     string   `json:"error,omitempty"` // why the shard could not be read
}

func (a *app) shardsStatus(ctx context.Context, r *shard.Router, _ config.ShardList) error {
	m := r.Map()
	status := shardMap{Epoch: m.Epoch, Previous: shardNames(m.Previous), Shards: shardNames(m.Shards)}
	for _, s := range r.Each() {
		one := shardStatus{Name: s.Name, Endpoints: s.Endpoints}
		err := s.EachUser(ctx, func(user string, n int) {
			one.Users, one.Streams = one.Users+1, one.Streams+n
			if m.Shard(user) != s.Name {
				one.ToMove++
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
	return a.printShards(status)
}

func (a *app) printShards(m shardMap) error {
	where := "users are on " + joinNames(m.Shards)
	if len(m.Previous) > 0 {
		where = fmt.Sprintf("users are moving from %s to %s", joinNames(m.Previous), joinNames(m.Shards))
	}
	if err := a.printf("epoch %d: %s\n", m.Epoch, where); err != nil {
		return err
	}
	rows := [][]string{{"SHARD", "USERS", "STREAMS", "TO MOVE", "ADDRESSES"}}
	for _, s := range m.Each {
		row := []string{s.Name, fmt.Sprint(s.Users), fmt.Sprint(s.Streams), fmt.Sprint(s.ToMove), strings.Join(s.Endpoints, ",")}
		if s.Error != "" {
			row = []string{s.Name, "-", "-", "-", strings.Join(s.Endpoints, ",") + " (" + s.Error + ")"}
		}
		rows = append(rows, row)
	}
	return a.printTable(rows, "SHARD")
}

// commandActor returns the user and the host that run the command, for the audit log.
func commandActor() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return "command " + name + "@" + config.HostName()
}

func shardNames(shards []shard.Shard) []string {
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
		Short:   "Show how many users a move to other shards would move",
		Example: `  streamcount shards plan --shard a=http://a:2379 --to a=http://a:2379 --to b=http://b:2379`,
	}, true, a.shardsPlan)
}

func (a *app) shardsPlan(ctx context.Context, r *shard.Router, to config.ShardList) error {
	next := shard.Map{Shards: to}
	type pair struct{ from, to string }
	users, streams := map[pair]int{}, map[pair]int{}
	for _, s := range r.Each() {
		err := s.EachUser(ctx, func(user string, n int) {
			p := pair{s.Name, next.Shard(user)}
			users[p]++
			streams[p] += n
		})
		if err != nil {
			return fmt.Errorf("shard %s: %w", s.Name, err)
		}
	}
	plan := []shardMove{}
	for p, n := range users {
		plan = append(plan, shardMove{From: p.from, To: p.to, Users: n, Streams: streams[p]})
	}
	slices.SortFunc(plan, func(a, b shardMove) int {
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

// A shardMove is the number of users and streams that would move between two shards, or stay
// if From and To are the same.
type shardMove struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Users   int    `json:"users"`
	Streams int    `json:"streams"`
}

func (a *app) shardsMoveCommand() *cobra.Command {
	return a.shardsSubcommand(&cobra.Command{
		Use:   "move",
		Short: "Distribute users over other shards while the service runs",
		Long: `Distribute users over other shards while the service runs. No user exceeds their
limit during the move and no stream ends. All nodes must be able to connect to the
new shards at the addresses given here, which they read from etcd. If the command
is interrupted, run it again to finish the move. After the move, set the new
--shard flags of the nodes.`,
		Example: `  streamcount shards move --shard a=http://a:2379 --to a=http://a:2379 --to b=http://b:2379`,
	}, true, a.shardsMove)
}

func (a *app) shardsMove(ctx context.Context, r *shard.Router, to config.ShardList) error {
	began := time.Now()
	var moved, shown int64
	err := r.Move(ctx, to, func(p shard.Progress) {
		if moved = p.Moved; !a.json && p.Moved-shown >= 1000 {
			shown = p.Moved
			_ = a.printf("%d users moved, now from %s\n", p.Moved, p.Source) // progress is optional
		}
	})
	if errors.Is(err, shard.ErrInvalid) {
		return usageError{err}
	}
	if err != nil {
		return fmt.Errorf("the move is not finished: run the same command again to finish it: %w", err)
	}
	m := r.Map()
	if a.json {
		return a.printJSON(struct {
			Epoch  int64    `json:"epoch"`
			Shards []string `json:"shards"`
			Moved  int64    `json:"moved"` // users, by this command
		}{m.Epoch, shardNames(m.Shards), moved})
	}
	return a.printf("users are on %s (epoch %d): %d moved by this command in %v\n",
		joinNames(shardNames(m.Shards)), m.Epoch, moved, time.Since(began).Round(time.Millisecond))
}
