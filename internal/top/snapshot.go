// Package top displays the state of a running service: totals, the history of the last hour,
// users, regions, nodes, etcd members and limits. It is interactive on a terminal; elsewhere it
// prints the state once.
package top

import (
	"cmp"
	"context"
	"sync"

	"streamcount/api/apitype"
)

// maxUsers is the maximum number of users that are requested.
const maxUsers = 100

// A Source returns the state of a running service. It is implemented by client.Client.
type Source interface {
	Stats(ctx context.Context) (apitype.Stats, error)
	History(ctx context.Context) (apitype.History, error)
	Concurrency(ctx context.Context) (apitype.Concurrency, error)
	TopUsers(ctx context.Context, prefix string, n int) (apitype.TopUsers, error)
}

// A Snapshot is the state of the service at one time.
type Snapshot struct {
	Stats   apitype.Stats    `json:"stats"`
	History apitype.History  `json:"history"`
	Users   apitype.TopUsers `json:"users"`
	// Refused are the refusals of the responding node today, by limit.
	Refused []apitype.RefusedCount `json:"refused"`
}

// Fetch requests a snapshot with the users whose ids begin with prefix.
func Fetch(ctx context.Context, source Source, prefix string) (Snapshot, error) {
	var s Snapshot
	var wg sync.WaitGroup
	var concurrency apitype.Concurrency
	var stats, history, users, refused error
	wg.Go(func() { s.Stats, stats = source.Stats(ctx) })
	wg.Go(func() { s.History, history = source.History(ctx) })
	wg.Go(func() { s.Users, users = source.TopUsers(ctx, prefix, maxUsers) })
	wg.Go(func() { concurrency, refused = source.Concurrency(ctx) })
	wg.Wait()
	s.Refused = concurrency.Refused
	return s, cmp.Or(stats, history, users, refused) // the errors probably have the same cause
}
