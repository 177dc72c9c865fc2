package etcdtest

import (
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// Regions is a cluster with members in several regions. Messages between members, and between
// clients and members over Links, are delayed between regions and not within one. The members
// advertise an address without a server, so that all clients use the links.
type Regions struct {
	*Cluster
	regions   []string // of each member
	roundTrip atomic.Int64
	regionOf  atomic.Pointer[map[string]string] // by member id; nil while the cluster starts
}

// unusedURL is a URL at which connections are refused.
const unusedURL = "http://127.0.0.1:1"

// StartRegions is StartCluster with a member in each of the regions, which may be
// named more than once. There is no delay until RoundTrip.
func StartRegions(tb testing.TB, cfg Config, regions ...string) *Regions {
	tb.Helper()
	r := &Regions{regions: regions}
	configs := make([]Config, len(regions))
	for i, region := range regions {
		link := NewLink(tb, func(member string) time.Duration { return r.fromMember(member, region) })
		cfg.Advertise = unusedURL
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

// RoundTrip sets the round-trip time between any two regions.
func (r *Regions) RoundTrip(d time.Duration) { r.roundTrip.Store(int64(d)) }

// Links returns new links from a region to each of the members.
func (r *Regions) Links(tb testing.TB, from string) []*Link {
	tb.Helper()
	links := make([]*Link, len(r.regions))
	for i, to := range r.regions {
		links[i] = NewLink(tb, func(string) time.Duration { return r.oneWay(from, to) })
		links[i].To(r.Members[i].Endpoint())
	}
	return links
}

// Kill stops member i abruptly: a leader does not transfer its leadership.
func (r *Regions) Kill(i int) {
	r.Members[i].disconnectClients() // a call would use a closed database
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
	if !known { // the connection carries no raft messages
		return 0
	}
	return r.oneWay(from, to)
}
