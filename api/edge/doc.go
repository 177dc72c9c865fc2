// Package edge answers the proxies in front of media: it decides whether a request of a player
// for media is allowed. Such a request starts the stream of its session, and later ones keep the
// stream alive, so that players need no change.
//
// A [Checker] makes the decisions. A [Server] reads the requests of proxies and writes the
// answers, on a separate listener with separate limits. Package profile reads the file that
// describes the requests of players.
package edge
