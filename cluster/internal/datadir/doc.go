// Package datadir locks the data directory of an embedded etcd and checks its files.
package datadir
