//go:build !unix

package main

// maxOpenFiles returns how many files this process may open: there is no separate limit.
func maxOpenFiles() int { return 1 << 20 }
