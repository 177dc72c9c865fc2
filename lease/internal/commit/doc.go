// Package commit sends the writes of many users to etcd in shared transactions.
package commit
