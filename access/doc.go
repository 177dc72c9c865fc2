// Package access authenticates callers, and decides what each kind of caller may do. It
// depends neither on the limiter nor on HTTP routes.
package access
