// Package metrics is what a node tells Prometheus: its requests by route, what its
// limiters have counted, how it stands with etcd, and the process itself.
//
// The registry is the node's own: the embedded etcd registers on the default one.
// No label holds what a client sent, and every label has a bounded number of
// values. Counting a request costs no look-up: each route has its counters from
// the moment it is registered. What limiters count is read when Prometheus asks.
package metrics
