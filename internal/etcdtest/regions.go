package etcdtest

import (
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// Regions is a cluster whose members stand in regions. What members say to each
// other, and what clients say to members over Ways, takes time between regions and
// none within one. The members advertise no address that clients could reach, so
// that nothing goes past the links.
type Regions struct {
	*Cluster
	where     []string // the region of each member
	roundTrip atomic.Int64
	regionOf  atomic.Pointer[map[string]string] // by member id; nil while the cluster starts
}

// nowhere is an address at which nobody answers, and which says so at once.
const nowhere = "http://127.0.0.1:1"

// StartRegions is StartCluster with a member in each of the regions, which may be
// named more than once. There is no delay until RoundTrip.
func StartRegions(tb testing.TB, cfg Config, regions ...string) *Regions {
	tb.Helper()
	r := &Regions{where: regions}
	configs := make([]Config, len(regions))
	for i, region := range regions {
		link := NewLink(tb, func(member string) time.Duration { return r.fromMember(member, region) })
		cfg.Advertise = nowhere
		cfg.peersVia = func(listener url.URL) url.URL {
			link.To(listener.Host)
			return url.URL{Scheme: listener.Scheme, Host: link.Address()}
		}
		configs[i] = cfg
	}
	r.Cluster = StartClusterOf(tb, configs...)
	ids := map[string]string{}
	for i, m := range r.Members {
		ids[m.embed.Server.MemberID().String()] = regions[i]
	}
	r.regionOf.Store(&ids)
	return r
}

// RoundTrip sets how long it takes from any region to any other and back.
func (r *Regions) RoundTrip(d time.Duration) { r.roundTrip.Store(int64(d)) }

// Ways returns new links from a region to each of the members.
func (r *Regions) Ways(tb testing.TB, from string) []*Link {
	tb.Helper()
	ways := make([]*Link, len(r.where))
	for i, to := range r.where {
		ways[i] = NewLink(tb, func(string) time.Duration { return r.oneWay(from, to) })
		ways[i].To(r.Members[i].Endpoint())
	}
	return ways
}

// Kill ends member i without a word: a leader does not hand over.
func (r *Regions) Kill(i int) {
	r.Members[i].hangUp() // a call would meet a database that is closed
	r.Members[i].embed.Server.HardStop()
	r.Stop(i)
}

func (r *Regions) oneWay(from, to string) time.Duration {
	if from == to {
		return 0
	}
	return time.Duration(r.roundTrip.Load()) / 2
}

func (r *Regions) fromMember(member, to string) time.Duration {
	ids := r.regionOf.Load()
	if ids == nil {
		return 0
	}
	from, known := (*ids)[member]
	if !known { // a question for the version, and the like
		return 0
	}
	return r.oneWay(from, to)
}
