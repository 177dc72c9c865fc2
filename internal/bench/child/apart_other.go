//go:build !linux

package child

func startApart(start func() error) error { return start() }
