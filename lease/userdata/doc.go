// Package userdata reads and erases everything that an etcd cluster stores under the id of
// one user.
package userdata
