// Package etcdop builds the requests, operations and conditions of etcd
// transactions, and classifies the errors that etcd returns for them.
package etcdop
