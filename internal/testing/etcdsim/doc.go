// Package etcdsim is an in-memory etcd for simulations. It implements transactions, leases and
// watches as etcd's documentation describes them, in the simplest way. Its network loses and
// delays messages. It uses the virtual time of a bubble (testing/synctest), so that a
// simulation of hours takes a moment.
package etcdsim
