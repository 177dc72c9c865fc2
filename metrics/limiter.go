package metrics

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"streamcount/lease"
)

// limiterCollector tells what the limiters have counted.
type limiterCollector struct {
	shards func() map[string]*lease.Measures
}

// emit takes a value, and those of its labels but the shard's.
type emit func(v float64, labels ...string)

// family is a metric of each shard's limiter.
type family struct {
	name, help string
	label      string // besides the shard; "" for none
	kind       prometheus.ValueType
	values     func(*lease.Measures, emit)
}

// distribution is a histogram of each shard's limiter.
type distribution struct {
	name, help, label string
	values            func(*lease.Measures, func(lease.Distribution, ...string))
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

func one(value func(*lease.Measures) float64) func(*lease.Measures, emit) {
	return func(m *lease.Measures, out emit) { out(value(m)) }
}

func each(values func(*lease.Measures) map[string]int64) func(*lease.Measures, emit) {
	return func(m *lease.Measures, out emit) {
		for name, n := range values(m) {
			out(float64(n), name)
		}
	}
}

var families = []family{
	{"starts_total", "Starts that this node decided, by outcome.", "outcome", counter,
		each(func(m *lease.Measures) map[string]int64 { return m.Starts })},
	{"heartbeats_total", "Heartbeats that this node answered, by outcome.", "outcome", counter,
		each(func(m *lease.Measures) map[string]int64 { return m.Heartbeats })},
	{"stops_total", "Stops and removals that this node carried out, by outcome.", "outcome", counter,
		each(func(m *lease.Measures) map[string]int64 { return m.Stops })},
	{"expired_streams_total", "Streams of all nodes that this node saw expire.", "", counter,
		one(func(m *lease.Measures) float64 { return float64(m.Expired) })},

	{"streams", "Streams of all nodes, as this node knows them.", "", gauge,
		one(func(m *lease.Measures) float64 { return float64(m.Streams) })},
	{"users", "Users of all nodes by how many streams they have.", "streams", gauge, usersByStreams},
	{"users_at_limit", "Users who have as many streams as they may.", "", gauge,
		one(func(m *lease.Measures) float64 { return float64(m.UsersAtLimit) })},
	{"region_streams", "Streams of all nodes by the region they were started in.", "region", gauge, streamsByRegion},

	{"view_age_seconds", "Time since the last sign of life of the watch by which this node follows etcd.", "", gauge,
		one(func(m *lease.Measures) float64 { return m.ViewAge.Seconds() })},
	{"view_current", "1 if this node may answer from what it knows, 0 if it has to ask etcd.", "", gauge,
		one(func(m *lease.Measures) float64 { return truth(m.ViewCurrent) })},
	{"view_revision", "The revision of etcd up to which this node knows everything.", "", gauge,
		one(func(m *lease.Measures) float64 { return float64(m.Revision) })},

	{"pool_leases", "Leases without a stream: ready for a start, or spent and to be revoked.", "state", gauge,
		func(m *lease.Measures, out emit) {
			out(float64(m.LeasesReady), "ready")
			out(float64(m.LeasesSpent), "spent")
		}},
	{"pool_moves_total", "Leases that came to the pool (granted, retired) and left it.", "move", counter,
		each(func(m *lease.Measures) map[string]int64 { return m.Leases })},
	{"batch_waiting_writes", "Writes that wait for a batch.", "", gauge,
		one(func(m *lease.Measures) float64 { return float64(m.WritesWaiting) })},
	{"renewals_total", "Renewals of leases by outcome; coalesced ones needed no request.", "outcome", counter,
		each(func(m *lease.Measures) map[string]int64 { return m.Renewals })},
	{"late_renewals_total", "Renewals that were sent on a stream of their own, because they may be too late.", "", counter,
		one(func(m *lease.Measures) float64 { return float64(m.LateRenewals) })},

	{"etcd_call_failures_total", "Calls to etcd that failed or were given up.", "call", counter,
		each(func(m *lease.Measures) map[string]int64 { return m.CallsFailed })},
	{"etcd_leader_changes_total", "Elections of a leader of etcd that this node noticed.", "", counter,
		one(func(m *lease.Measures) float64 { return float64(m.LeaderChanges) })},
	{"etcd_full", "1 if etcd refused a write lately because it is full.", "", gauge,
		one(func(m *lease.Measures) float64 { return truth(m.EtcdFull) })},
	{"circuit_open", "1 while calls fail at once because etcd does not answer.", "", gauge,
		one(func(m *lease.Measures) float64 { return truth(m.CircuitOpen) })},
	{"circuit_openings_total", "How often etcd has not answered for some seconds.", "", counter,
		one(func(m *lease.Measures) float64 { return float64(m.CircuitOpened) })},
	{"provisional_streams", "Streams that this node admitted and that etcd has yet to be told of.", "", gauge,
		one(func(m *lease.Measures) float64 { return float64(m.Provisional) })},
	{"provisional_settled_total", "Provisional streams by what became of them.", "outcome", counter,
		each(func(m *lease.Measures) map[string]int64 { return m.Settled })},
	{"cleanup_waiting", "Leases and stops that are left to the background.", "", gauge,
		one(func(m *lease.Measures) float64 { return float64(m.Cleaning) })},
}

var distributions = []distribution{
	{"batch_writes", "Writes of users that shared one transaction.", "",
		func(m *lease.Measures, out func(lease.Distribution, ...string)) { out(m.BatchSize) }},
	{"batch_wait_seconds", "Time that a write waited for its batch.", "",
		func(m *lease.Measures, out func(lease.Distribution, ...string)) { out(m.BatchWait) }},
	{"etcd_call_duration_seconds", "Time until etcd answered.", "call",
		func(m *lease.Measures, out func(lease.Distribution, ...string)) {
			for call, d := range m.Calls {
				out(d, call)
			}
		}},
}

var (
	familyDescs       = descsOf(families, func(f family) [3]string { return [3]string{f.name, f.help, f.label} })
	distributionDescs = descsOf(distributions, func(d distribution) [3]string { return [3]string{d.name, d.help, d.label} })
	shardReached      = prometheus.NewDesc("streamcount_shard_reached",
		"1 if the node has reached the etcd cluster.", []string{"shard"}, nil)
)

func descsOf[T any](all []T, what func(T) [3]string) []*prometheus.Desc {
	out := make([]*prometheus.Desc, len(all))
	for i, f := range all {
		w := what(f)
		labels := []string{"shard"}
		if w[2] != "" {
			labels = append(labels, w[2])
		}
		out[i] = prometheus.NewDesc("streamcount_"+w[0], w[1], labels, nil)
	}
	return out
}

// Describe implements prometheus.Collector.
func (c *limiterCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range append(familyDescs, distributionDescs...) {
		out <- d
	}
	out <- shardReached
}

// Collect implements prometheus.Collector.
func (c *limiterCollector) Collect(out chan<- prometheus.Metric) {
	if c.shards == nil {
		return
	}
	for shard, m := range c.shards() {
		shard = labelValue(shard)
		out <- prometheus.MustNewConstMetric(shardReached, gauge, truth(m != nil), shard)
		if m == nil {
			continue
		}
		for i, f := range families {
			f.values(m, func(v float64, labels ...string) {
				out <- prometheus.MustNewConstMetric(familyDescs[i], f.kind, v, append([]string{shard}, labels...)...)
			})
		}
		for i, f := range distributions {
			f.values(m, func(d lease.Distribution, labels ...string) {
				out <- prometheus.MustNewConstHistogram(
					distributionDescs[i], d.Count, d.Sum, d.Most, append([]string{shard}, labels...)...)
			})
		}
	}
}

// usersByStreams has a label value for each number up to the limit's own bound.
// More, which only others can have written, is one value.
func usersByStreams(m *lease.Measures, out emit) {
	for n, users := range m.Users {
		label := strconv.Itoa(n)
		if n > lease.MaxLimit {
			label = "more"
		}
		out(float64(users), label)
	}
}

// streamsByRegion adds up regions that look the same as a label.
func streamsByRegion(m *lease.Measures, out emit) {
	regions := make(map[string]int, len(m.Regions))
	for name, n := range m.Regions {
		regions[labelValue(name)] += n
	}
	for name, n := range regions {
		out(float64(n), name)
	}
}

const maxLabel = 64 // bytes, as regions may have

// labelValue is text as a label may have it: others than nodes may write regions
// into etcd.
func labelValue(text string) string {
	text = strings.ToValidUTF8(text, "?")
	for len(text) > maxLabel {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}
