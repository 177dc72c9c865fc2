// Package policy decides which streams of a user may run. It is pure: it
// depends neither on etcd nor on HTTP, and has no state.
package policy
