// Package schema defines what streamcount stores in etcd: the layout of the keys, and
// the encoding of the values.
package schema
