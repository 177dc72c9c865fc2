// Package leasepool grants etcd leases, keeps leases ready for streams, and revokes those
// that are not needed.
package leasepool
