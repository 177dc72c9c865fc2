// Package keepalive renews etcd leases over shared streams.
package keepalive
