// Package client is the Go client of streamcount, for players and for backends that act for
// them.
//
// [Client.Start] takes one of a user's slots and keeps it: the [Stream] it returns sends
// heartbeats in the background until it is stopped or ends, which closes [Stream.Done].
// [Client.StartEventually] is for players that continue while the service does not answer, or
// rejects the start for another reason than the limit.
//
// A start at the limit is a [LimitError]. [LimitError.Message] is the text of the user's plan
// for viewers, and [LimitError.Enough] lists the streams in whose place the start would be
// admitted: repeat it with the id of one of them in Replaces. If there is none, several streams
// have to end, and Blocks of each stream in [LimitError.Active] names the limits that it counts
// for.
//
// Only the service ends a Stream: by a 410, or by a 404 that the service itself sent. After
// every other failure (5xx, 429, no answer, an answer that is not the service's) the Stream
// continues and retries until its lease has expired; see [Stream.Err].
//
// Each of the other methods of [Client] makes one call of the service.
//
// Clients and Streams are safe for concurrent use.
package client
