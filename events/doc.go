// Package events publishes what happens to the streams of all users as a node
// observes it: starts, stops, expiries and rejected starts.
//
// A [Feed] holds the last events of one node. Each etcd cluster has a [Publisher],
// which a [lease.Limiter] calls as its observer. Any number of followers read the
// feed at their own speed. A [Follower] resumes after a cursor, on the same node or
// on another one, without a lost or repeated event; where that is impossible it
// receives a gap event first.
package events
