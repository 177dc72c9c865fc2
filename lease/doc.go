// Package lease limits the number of concurrent streams of a user.
//
// A stream runs while it has a slot: an etcd key below the prefix of its user, attached
// to an etcd lease. One etcd transaction admits a stream only if the user is below the
// limit, so no race, crash or lost reply can exceed it. A client that stops without
// notice no longer renews the lease of its stream, and etcd frees the slot one TTL later.
//
// A failed etcd write may have been applied, unless etcd rejected it before it was
// proposed. A start with such an unknown outcome returns an [ErrUnavailable] and is undone
// in the background. A stop with an unknown outcome is repeated. A heartbeat that etcd
// does not answer is reported as degraded, so that players continue.
//
// The admission rule is [policy.Decide], a pure function. File start.go is the path of a
// start from top to bottom, and admission.go applies the rule and builds the transaction
// that guards the decision. A user's plan may have several limits, for example of the
// streams of a kind of device or of each profile: package policy describes them. Their
// conditions read the device, the content and the [policy.StartAttributes] of the starts.
package lease
