// Package api is streamcount's HTTP surface: the calls of a user's streams and
// their totals as JSON under /api/v1, health for orchestrators, and the
// documents that describe it all.
//
// What a client can rely on: every refusal under /api is a problem (RFC 9457)
// whose status alone decides what to do, and only 403 means "too many
// streams". A request that could be read in two ways (two lengths, duplicate
// keys, folded headers, an encoded slash in the path) is refused before any
// stream is touched. No refusal repeats what the client sent.
//
// What a client can do to the process is bounded: connections, requests in
// flight, headers, paths, bodies and the time that each may take.
//
// The order of a request: [Server.observe] (log, panics), [Server.filter]
// (framing, target, load), the router, [Server.guard] (query, body, deadline),
// huma (validation against the schema), the handler in streams.go, and on the
// way back the table in api/internal/convert/problem.go.
package api
