// Package etcdsim is an etcd made of maps, for simulations. It does what
// etcd's documentation says of transactions, leases and watches, in the dumbest way, and
// its network loses and delays messages as it is told. It has no clock but that of the
// bubble it runs in (testing/synctest), so hours pass in a moment.
package etcdsim
