// Package cluster is this process among its peers: the etcd that it runs
// itself or the client of one that others run, the secret and the node list
// that all nodes share, and what to say about etcd's health.
//
// What a caller must know about failure: an etcd that is away is never an
// error of [Connect] or [Registration.Run], which go on trying until their
// context ends. An error at once means that trying again cannot help: a wrong
// password, a certificate that is not trusted, an etcd too old to be safe, a
// data directory that cannot be used. Such errors say what to do.
package cluster
