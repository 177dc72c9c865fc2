// Package metrics exports the metrics of a node to Prometheus: requests by route, the
// counters of the limiters, the state of the replica, and the process.
//
// The metrics have their own registry, because the embedded etcd uses the default one. No
// label value comes from a client, and every label has a bounded number of values. Each
// route gets its counters when it is registered, so that counting a request needs no
// look-up. All other values are read at each scrape.
package metrics
