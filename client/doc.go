// Package client is the Go client of streamcount, for players and for the
// backends that speak for them.
//
// [Client.Start] takes one of a user's slots and keeps it: the [Stream] it
// returns sends heartbeats in the background until it is stopped or ends.
// Whoever plays watches [Stream.Done].
//
// What a Stream does when things fail, in one rule: only the service may end
// it. A 410 or a 404 that the service wrote ends it at once. Everything else
// (5xx, 429, no answer, an answer that is not the service's) leaves it playing
// and is tried again, until its lease must have lapsed; see [Stream.Err].
//
// The other methods of [Client] are the service's calls, one each.
//
// Clients and Streams are safe for concurrent use.
package client
