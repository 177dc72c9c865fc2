// Package load makes requests at a given rate and measures the latency of their
// answers. It uses little CPU time, because it shares a machine with the server under
// test. In an open loop the latency of a request is measured from the time at which the
// request is due, so a stall of the server counts for every request that it delays (no
// coordinated omission).
package load
