package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/singleflight"

	"streamcount/api/apitype"
	"streamcount/lease"
)

func (s *Server) statsRoutes(a huma.API) {
	handle(a, "GET", "/api/v1/stats", statsDoc(), s.stats)
	handle(a, "GET", "/api/v1/stats/history", historyDoc(), s.readHistory)
	handle(a, "GET", "/api/v1/stats/concurrency", concurrencyDoc(), s.concurrency)
	handle(a, "GET", "/api/v1/streams/users", busiestDoc(), s.busiestUsers)
}

func (s *Server) stats(ctx context.Context, _ *struct{}) (*reply[apitype.Stats], error) {
	t, err := s.limiter().Totals(ctx)
	if err != nil {
		return nil, err
	}
	out := apitype.Stats{
		Streams: t.Streams, Users: t.Users, UsersAtLimit: t.UsersAtLimit, Regions: t.ByRegion,
		Admitted: t.Admitted, Refused: t.Refused, Expired: t.Expired,
		Rates: s.history.rates(), Latency: s.latency.read(time.Now()),
		Node: s.cfg.Node, Nodes: s.nodes(ctx), Shards: s.shards(ctx), Revision: t.Revision,
	}
	if out.Regions == nil {
		out.Regions = map[string]int{}
	}
	if len(out.Shards) == 1 {
		out.Leader = out.Shards[0].Leader
	}
	return &reply[apitype.Stats]{out}, nil
}

// nodes returns what the registered nodes say of themselves, as far as it is known.
func (s *Server) nodes(ctx context.Context) []apitype.NodeReport {
	ask := s.backend.Load().Nodes
	if ask == nil {
		return []apitype.NodeReport{}
	}
	known, err := ask(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "list the nodes", "err", err)
	}
	return append([]apitype.NodeReport{}, known...)
}

// shards returns what is known of the etcd clusters. The totals do not wait for
// etcd, so they are worth an answer even when this is not complete.
func (s *Server) shards(ctx context.Context) []apitype.Shard {
	list := []apitype.Shard{}
	ask := s.backend.Load().Shards
	if ask == nil {
		return list
	}
	known, err := ask(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "describe the etcd clusters", "err", err)
	}
	for _, sh := range known {
		if sh.Etcd == nil {
			sh.Etcd = []apitype.EtcdMember{}
		}
		list = append(list, sh)
	}
	return list
}

func (s *Server) readHistory(context.Context, *struct{}) (*reply[apitype.History], error) {
	return &reply[apitype.History]{s.history.read()}, nil
}

// errNothingNoted is the answer of a node that has a limiter which tells nothing.
var errNothingNoted = fmt.Errorf("%w: the node does not note what happens", lease.ErrUnavailable)

func (s *Server) concurrency(context.Context, *struct{}) (*reply[apitype.Concurrency], error) {
	feed := s.backend.Load().Feed
	if feed == nil {
		return nil, errNothingNoted
	}
	c := feed.Concurrency()
	out := apitype.Concurrency{
		Since: apitype.At(c.Since), Partial: c.Partial, Reached: []apitype.ReachedCount{}, Refused: []apitype.RefusedCount{},
	}
	for i, users := range c.Reached {
		out.Reached = append(out.Reached, apitype.ReachedCount{Streams: i + 1, Users: users})
	}
	for _, r := range c.Refused {
		out.Refused = append(out.Refused, apitype.RefusedCount{Limit: r.Limit, Users: r.Users, Starts: r.Starts})
	}
	return &reply[apitype.Concurrency]{out}, nil
}

type busiestInput struct {
	Prefix userPrefix `query:"prefix" doc:"Only users whose ids begin so."`
	Most   int        `query:"most" minimum:"1" maximum:"1000" default:"20" doc:"How many users, at most."`
}

// A userPrefix is what a user's id may begin with.
type userPrefix string

// Schema is the rule as huma checks and documents it.
func (userPrefix) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: `^[A-Za-z0-9._~@:|+=-]{0,128}$`,
		PatternDescription: "the beginning of a user id", Examples: []any{"ma"},
	}
}

func (s *Server) busiestUsers(ctx context.Context, in *busiestInput) (*reply[apitype.BusiestUsers], error) {
	ask := s.backend.Load().Busiest
	if ask == nil {
		return nil, errNothingNoted
	}
	found, err := s.busiest.read(ctx, string(in.Prefix), in.Most, ask)
	if err != nil {
		return nil, err
	}
	out := apitype.BusiestUsers{Users: []apitype.BusyUser{}, More: found.more}
	for _, b := range found.users {
		out.Users = append(out.Users, apitype.BusyUser{UserID: b.User, Streams: b.Streams, Limit: b.Limit})
	}
	return &reply[apitype.BusiestUsers]{out}, nil
}

const (
	busiestAge = 1500 * time.Millisecond // to find them anew takes a look at every user
	maxBusiest = 16                      // answers that are kept
)

// busiest keeps the last answers.
type busiest struct {
	flight singleflight.Group
	mu     sync.Mutex
	kept   map[string]busiestAnswer
}

type busiestAnswer struct {
	at    time.Time
	users []lease.Busy
	more  bool
}

// read returns an answer that is young enough, or asks, once for all who want the
// same.
func (b *busiest) read(
	ctx context.Context, prefix string, most int,
	ask func(context.Context, string, int) ([]lease.Busy, bool, error),
) (busiestAnswer, error) {
	key := fmt.Sprint(most, " ", prefix)
	b.mu.Lock()
	a, kept := b.kept[key]
	b.mu.Unlock()
	if kept && time.Since(a.at) < busiestAge {
		return a, nil
	}
	got, err, _ := b.flight.Do(key, func() (any, error) {
		users, more, err := ask(context.WithoutCancel(ctx), prefix, most)
		return busiestAnswer{time.Now(), users, more}, err
	})
	a = got.(busiestAnswer)
	if err != nil {
		return a, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept == nil || len(b.kept) >= maxBusiest {
		b.kept = map[string]busiestAnswer{}
	}
	b.kept[key] = a
	return a, nil
}
