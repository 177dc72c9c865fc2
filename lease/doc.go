// Package lease limits how many streams a user may watch at once.
//
// A stream runs only while it holds a slot: one of the limit's etcd keys under
// its user's prefix, kept alive by an etcd lease. One etcd transaction admits a
// stream only while a slot is free, so no race, crash or lost reply takes a
// user over the limit. A client that dies stops renewing its lease, and its
// slot comes back by itself one TTL later.
//
// What a caller must know about failure: an etcd write that errs without a
// refusal may have happened. A start with such an outcome is reported as
// [ErrUnavailable] and revoked in the background; a stop is repeated; a
// heartbeat is answered as degraded, so that players go on.
//
// The admission rule is [decide] (what may happen, as a pure function) and
// [Limiter.admitTxn] (the transaction that carries it out).
//
// A [Limiter] is safe for concurrent use.
package lease
