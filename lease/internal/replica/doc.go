// Package replica maintains a node's in-memory copy of the streams and the rules in
// etcd, by list and watch.
package replica
