// Package bench measures a streamcount node, and peers beside it, over real
// HTTP. Each scenario is a kind of evening: viewers who come and go, a
// kick-off, a final whistle, a blackout. Every answer is checked, so that no
// speed is reported for a limiter that miscounts.
//
// A benchmark consists of runs; in each run every target is visited once, in
// turn, so that what disturbs the machine disturbs all of them. Unless it runs
// already, a target is started for its visit and gone afterwards.
package bench
