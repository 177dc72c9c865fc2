//go:build !unix

package node

import "math"

// openFileLimit returns how many files the process may open.
func openFileLimit() int { return math.MaxInt32 }
