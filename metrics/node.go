package metrics

import (
	"context"
	"runtime"
	rtmetrics "runtime/metrics"
	"time"

	"streamcount/lease/stats"
)

// A Source supplies the values of a node's metrics at each scrape. A metric whose function
// is nil has no value.
type Source struct {
	Version, Node, Region string

	Shards             func() map[string]*stats.Snapshot // by name; nil for a shard that the node has not reached
	Ready              func(context.Context) error       // nil if /readyz responds with 200
	InFlight           func() int                        // requests
	RejectedRequests   func() map[string]int64           // because a limit was reached, by limit
	RejectedStarts     func() map[string]int64           // because of their form, by the invalid part
	EventStreams       func() int
	AuthFailures       func() map[string]int64 // by reason
	Audit              func() Audit
	FilesFailing       func() int // sets of files that cannot be used
	OlderNodes         func() int // registered nodes that do not support the rules in use
	MemoryBudget       uint64     // bytes; 0 if there is none
	Connections        func() int
	ConnectionsClosed  func() map[string]int64 // by the node, by reason
	ArrivingBodies     func() int
	CertificateExpires func() time.Time
	Issuers            func() []Issuer // of viewers' tokens
	Edge               *Edge
}

// Audit is the state of the audit log.
type Audit struct {
	Lines   int64 // that were recorded
	Errors  int64 // failed attempts to write
	Waiting int64 // bytes that are not yet written
}

// An Issuer is the state of an issuer of viewers' tokens. The names of issuers and the
// reasons are few: the configuration and the program define them.
type Issuer struct {
	Name     string           // as configured; "" for tokens without a configured issuer
	Keys     int              // that can be used
	Remote   bool             // the keys are fetched from a URL
	Fetched  time.Time        // the last successful fetch; zero if there was none
	Rejected map[string]int64 // tokens, by reason
}

// readyTimeout bounds how long a scrape waits for etcd.
const readyTimeout = time.Second

// count reads a gauge without labels.
func count(n func(Source) func() int) func(Source, sink) {
	return func(src Source, s sink) {
		if read := n(src); read != nil {
			s.value(float64(read()))
		}
	}
}

// counts reads a counter with one label.
func counts(n func(Source) func() map[string]int64) func(Source, sink) {
	return func(src Source, s sink) {
		if read := n(src); read != nil {
			s.values(read())
		}
	}
}

// audit reads one number of the audit log.
func audit(n func(Audit) int64) func(Source, sink) {
	return func(src Source, s sink) {
		if src.Audit != nil {
			s.value(float64(n(src.Audit())))
		}
	}
}

// issuers reads a metric of each issuer.
func issuers(read func(Issuer, sink)) func(Source, sink) {
	return func(src Source, s sink) {
		if src.Issuers == nil {
			return
		}
		for _, i := range src.Issuers() {
			read(i, s)
		}
	}
}

var nodeFamilies = []family[Source]{
	{"build_info", "The version of the program and of Go, in labels. The value is 1.", gauge, []string{"version", "goversion"},
		func(src Source, s sink) { s.value(1, labelValue(src.Version), runtime.Version()) }},
	{"node_info", "The name and the region of the node, in labels. The value is 1.", gauge, []string{"node", "region"},
		func(src Source, s sink) { s.value(1, labelValue(src.Node), labelValue(src.Region)) }},
	{"ready", "1 if /readyz responds with 200, 0 otherwise.", gauge, nil,
		func(src Source, s sink) {
			if src.Ready == nil {
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
			defer cancel()
			s.value(boolValue(src.Ready(ctx) == nil))
		}},
	{"http_requests_in_flight", "Requests that are being served.", gauge, nil,
		count(func(src Source) func() int { return src.InFlight })},
	{"http_requests_shed_total", "Requests that were rejected because a limit was reached, by limit.", counter, []string{"reason"},
		counts(func(src Source) func() map[string]int64 { return src.RejectedRequests })},
	{"rejected_starts_total", "Starts that were rejected because of their form, by the invalid part of the request.", counter, []string{"member"},
		counts(func(src Source) func() map[string]int64 { return src.RejectedStarts })},
	{"event_streams", "Open event streams.", gauge, nil,
		count(func(src Source) func() int { return src.EventStreams })},
	{"http_connections", "Open connections.", gauge, nil,
		count(func(src Source) func() int { return src.Connections })},
	{"http_connections_closed_total", "Connections that the node closed or did not accept because of a limit, by reason.", counter, []string{"reason"},
		counts(func(src Source) func() map[string]int64 { return src.ConnectionsClosed })},
	{"http_bodies_arriving", "Requests whose bodies have not arrived completely.", gauge, nil,
		count(func(src Source) func() int { return src.ArrivingBodies })},
	{"tls_certificate_expiry_timestamp_seconds", "When the server certificate expires.", gauge, nil,
		func(src Source, s sink) {
			if src.CertificateExpires != nil {
				s.value(float64(src.CertificateExpires().Unix()))
			}
		}},
	{"edge_connections", "Open connections of the listener for proxies.", gauge, nil,
		func(src Source, s sink) {
			if src.Edge != nil && src.Edge.Connections != nil {
				s.value(float64(src.Edge.Connections()))
			}
		}},
	{"edge_connections_closed_total", "Connections of the listener for proxies that the node closed or did not accept because of a limit, by reason.",
		counter, []string{"reason"},
		func(src Source, s sink) {
			if src.Edge != nil && src.Edge.ConnectionsClosed != nil {
				s.values(src.Edge.ConnectionsClosed())
			}
		}},
	{"edge_tls_certificate_expiry_timestamp_seconds", "When the certificate of the listener for proxies expires.", gauge, nil,
		func(src Source, s sink) {
			if src.Edge != nil && src.Edge.CertificateExpires != nil {
				s.value(float64(src.Edge.CertificateExpires().Unix()))
			}
		}},

	{"auth_failures_total", "Calls that were rejected because of a missing or invalid credential, or a missing permission.", counter, []string{"reason"},
		counts(func(src Source) func() map[string]int64 { return src.AuthFailures })},
	{"audit_lines_total", "Lines that were recorded in the audit log.", counter, nil,
		audit(func(a Audit) int64 { return a.Lines })},
	{"audit_write_errors_total", "Failed attempts to write the audit log.", counter, nil,
		audit(func(a Audit) int64 { return a.Errors })},
	{"audit_waiting_bytes", "Bytes of the audit log that are not yet written.", gauge, nil,
		audit(func(a Audit) int64 { return a.Waiting })},
	{"files_failing", "Sets of files that cannot be read or used now. Their last valid contents stay in use.", gauge, nil,
		count(func(src Source) func() int { return src.FilesFailing })},
	{"older_nodes", "Registered nodes that do not support the rules in use, and may admit too many streams.", gauge, nil,
		count(func(src Source) func() int { return src.OlderNodes })},
	{"memory_budget_bytes", "The memory that the node may use: --memory, GOMEMLIMIT or the limit of the cgroup.", gauge, nil,
		func(src Source, s sink) {
			if src.MemoryBudget > 0 {
				s.value(float64(src.MemoryBudget))
			}
		}},
	{"memory_live_bytes", "Memory in use, without garbage, at the last garbage collection.", gauge, nil,
		func(_ Source, s sink) {
			live := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
			rtmetrics.Read(live)
			s.value(float64(live[0].Value.Uint64()))
		}},

	{"auth_keys", "Public keys of the issuer with which viewers' tokens can be verified.", gauge, []string{"issuer"},
		issuers(func(i Issuer, s sink) {
			if i.Name != "" {
				s.value(float64(i.Keys), i.Name)
			}
		})},
	{"auth_fetched_timestamp_seconds", "When the keys of the issuer were last fetched; 0 if never.", gauge, []string{"issuer"},
		issuers(func(i Issuer, s sink) {
			switch {
			case !i.Remote:
			case i.Fetched.IsZero():
				s.value(0, i.Name)
			default:
				s.value(float64(i.Fetched.UnixMilli())/1000, i.Name)
			}
		})},
	{"auth_tokens_rejected_total", "Viewers' tokens that were rejected, by reason. The issuer is empty if it is not configured.",
		counter, []string{"issuer", "reason"},
		issuers(func(i Issuer, s sink) {
			for reason, n := range i.Rejected {
				s.value(float64(n), i.Name, reason)
			}
		})},
}
