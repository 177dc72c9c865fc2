// Package cluster connects a node to etcd: an embedded server or the client of a cluster, the
// secret and the list of nodes that all nodes share, and the health of etcd.
//
// An unavailable etcd is never an error of [Connect] or [Registration.Run], which retry until
// their context ends. They return only permanent errors at once: a wrong password, an
// untrusted certificate, an etcd version that is not safe, an unusable data directory. Such
// errors describe what to do.
package cluster
