// Package etcdlog filters the logs of etcd's server and client.
package etcdlog
