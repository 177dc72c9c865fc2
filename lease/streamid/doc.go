// Package streamid issues and verifies stream ids, and derives the handles that
// identify streams in logs.
package streamid
