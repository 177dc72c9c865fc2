// Package overload limits the work that a node accepts. [Table] lists every limit: what it
// bounds, how a caller learns that it was reached, and why it exists. A [Control] applies
// the limits on requests; package ingress applies those on connections and bodies.
//
// Work beyond a limit is rejected at once. A queue would only add latency, and starts that
// wait in a queue delay the heartbeats of streams that are already playing.
package overload
