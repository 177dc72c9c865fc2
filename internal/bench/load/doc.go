// Package load makes requests at a given pace and measures how long their
// answers take. It is built to be cheap, because it shares a machine with the
// server it measures, and to be honest: in an open loop the clock of a request
// starts when the request was due, so a server that stalls is charged for every
// request that had to wait for it (no coordinated omission).
package load
