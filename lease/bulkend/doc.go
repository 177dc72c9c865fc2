// Package bulkend ends the streams of all users that fulfil conditions, for example the
// streams of a title whose rights expire.
package bulkend
