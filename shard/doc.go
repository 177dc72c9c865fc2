// Package shard spreads users over several etcd clusters. Each user belongs to one of them,
// and all keys of the user are there. A [Router] finds it, and migrates users one by one
// while the set of clusters changes.
//
// A [Map] assigns users to clusters. It has an epoch and is stored in every cluster. The
// transaction of a start has the condition that the map in the cluster is the one by which
// the start was routed ([streamcount/lease.Request].RoutingRevision). So a node with an older
// map admits no start, and detects the change by the failed condition.
package shard
