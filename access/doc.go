// Package access finds out who calls, and says what each kind of caller may do.
// It knows credentials, and neither the limiter nor HTTP routes.
package access
