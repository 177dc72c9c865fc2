// Package freeport finds ports for servers that must know their port before they listen.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Find returns a port of 127.0.0.1 that no process listens on. The port is below the range
// from which systems choose ports for connections and for listeners on port 0, so that no
// other process gets it before the caller listens.
func Find() (int, error) {
	for range 100 {
		port := 12_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}
