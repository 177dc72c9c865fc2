// Package shard spreads users over several etcd clusters. Each user lives on one
// of them, which admits and renews his streams alone; a [Router] finds it, and
// moves users one by one while the set of clusters changes.
//
// How users are spread is a [Map]. It has an epoch and stands in every cluster.
// A start asks in its transaction that the map there is the one it was routed by
// ([streamcount/lease.Request].Routed), so a node that has not heard of a change
// admits nobody; it learns of the change by that.
package shard
