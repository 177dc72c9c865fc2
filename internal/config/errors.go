package config

import "fmt"

// An Error is a configuration value, or a file that the configuration names, that must
// be corrected.
type Error struct{ err error }

// Errorf returns an Error.
func Errorf(format string, args ...any) error { return Error{fmt.Errorf(format, args...)} }

func (e Error) Error() string { return e.err.Error() }
func (e Error) Unwrap() error { return e.err }
