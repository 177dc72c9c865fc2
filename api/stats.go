package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/problem"
	"streamcount/events"
	"streamcount/lease"
	"streamcount/lease/userid"
)

func (s *Server) statsRoutes(a huma.API) {
	handle(a, "GET", "/api/v1/stats", openapi.Stats(), s.stats)
	handle(a, "GET", "/api/v1/stats/history", openapi.History(), s.readHistory)
	handle(a, "GET", "/api/v1/stats/concurrency", openapi.Concurrency(), s.concurrency)
	handle(a, "GET", "/api/v1/streams/users", openapi.TopUsers(), s.listTopUsers)
}

func (s *Server) stats(ctx context.Context, _ *struct{}) (*reply[apitype.Stats], error) {
	t, err := s.limiter().Totals(ctx)
	if err != nil {
		return nil, err
	}
	out := apitype.Stats{
		Streams: t.Streams, Users: t.Users, UsersAtLimit: t.UsersAtLimit, Regions: t.ByRegion, Via: t.ByVia,
		Admitted: t.Admitted, Refused: t.Refused, Expired: t.Expired,
		Rates: apitype.Rates(s.history.Rates()), Latency: s.latency.Read(time.Now()),
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
	out := apitype.History{EverySeconds: int(events.SampleInterval / time.Second), Samples: []apitype.Sample{}}
	for _, sm := range s.history.Samples() {
		out.Samples = append(out.Samples, apitype.Sample{
			At: apitype.At(sm.At), Streams: sm.Streams, Users: sm.Users, UsersAtLimit: sm.UsersAtLimit, Regions: sm.Regions,
			Starts: sm.Activity.Starts, Stops: sm.Activity.Stops, Expiries: sm.Activity.Expiries, Refusals: sm.Activity.Refused,
		})
	}
	return &reply[apitype.History]{out}, nil
}

// A historySource is what the history of a server samples.
type historySource struct{ s *Server }

// Feed implements HistorySource.
func (h historySource) Feed() *events.Feed { return h.s.backend.Load().Feed }

// Heartbeats implements HistorySource.
func (h historySource) Heartbeats() int64 { return h.s.heartbeats.Load() }

// Totals implements HistorySource.
func (h historySource) Totals(ctx context.Context) (lease.Totals, error) {
	ctx, cancel := context.WithTimeout(ctx, h.s.cfg.RequestTimeout)
	defer cancel()
	l := h.s.limiter()
	if l == nil {
		return lease.Totals{}, lease.ErrUnavailable
	}
	return l.Totals(ctx)
}

// errNoFeed is the error of a node without a feed.
var errNoFeed = fmt.Errorf("%w: the node does not record events", lease.ErrUnavailable)

func (s *Server) concurrency(context.Context, *struct{}) (*reply[apitype.Concurrency], error) {
	feed := s.backend.Load().Feed
	if feed == nil {
		return nil, errNoFeed
	}
	c := feed.Concurrency()
	out := apitype.Concurrency{
		Since: apitype.At(c.Since), Partial: c.Partial, Reached: []apitype.ReachedCount{}, Refused: []apitype.RefusedCount{},
	}
	for i, users := range c.UsersReaching {
		out.Reached = append(out.Reached, apitype.ReachedCount{Streams: i + 1, Users: users})
	}
	for _, r := range c.Refused {
		out.Refused = append(out.Refused, apitype.RefusedCount{Name: r.Name, Limit: r.Limit, Users: r.Users, Starts: r.Starts})
	}
	return &reply[apitype.Concurrency]{out}, nil
}

type topUsersInput struct {
	Prefix userPrefix `query:"prefix" doc:"Only users whose ids begin so."`
	Max    int        `query:"max" minimum:"1" maximum:"1000" default:"20" doc:"How many users, at most."`
}

// A userPrefix is what a user's id may begin with.
type userPrefix string

// Schema is the rule as huma checks and documents it.
func (userPrefix) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: strings.Replace(apitype.UserPattern, "{1,", "{0,", 1),
		PatternDescription: "the beginning of a user id", Examples: []any{"ma"},
	}
}

func (s *Server) listTopUsers(ctx context.Context, in *topUsersInput) (*reply[apitype.TopUsers], error) {
	ask := s.backend.Load().TopUsers
	if ask == nil {
		return nil, errNoFeed
	}
	if fault := userid.PrefixFault(string(in.Prefix)); fault != "" {
		return nil, problem.Invalid.New("The prefix is not the beginning of a user id: "+fault+".").
			WithField("query.prefix", "expected the beginning of a user id")
	}
	users, more, err := s.topUsers.Get(ctx, string(in.Prefix), in.Max, ask)
	if err != nil {
		return nil, err
	}
	out := apitype.TopUsers{Users: []apitype.TopUser{}, More: more}
	for _, b := range users {
		out.Users = append(out.Users, apitype.TopUser{UserID: b.User, Streams: b.Streams, Limit: b.Limit})
	}
	return &reply[apitype.TopUsers]{out}, nil
}
