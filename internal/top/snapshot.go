// Package top shows a service while it runs: totals, how they went over the last
// hour, and who and what they are made of. On a terminal it is redrawn every second
// and listens to keys; otherwise it is printed once.
package top

import (
	"cmp"
	"context"
	"sync"

	"streamcount/api/apitype"
)

// mostUsers is how many of the busiest users are asked for.
const mostUsers = 100

// A Source is a running service. client.Client is one.
type Source interface {
	Stats(ctx context.Context) (apitype.Stats, error)
	History(ctx context.Context) (apitype.History, error)
	BusiestUsers(ctx context.Context, prefix string, most int) (apitype.BusiestUsers, error)
}

// A Snapshot is all that is shown, at one time.
type Snapshot struct {
	Stats   apitype.Stats        `json:"stats"`
	History apitype.History      `json:"history"`
	Users   apitype.BusiestUsers `json:"users"`
}

// Look asks for a snapshot, the users being those whose ids begin with prefix.
func Look(ctx context.Context, source Source, prefix string) (Snapshot, error) {
	var s Snapshot
	var wg sync.WaitGroup
	var stats, history, users error
	wg.Go(func() { s.Stats, stats = source.Stats(ctx) })
	wg.Go(func() { s.History, history = source.History(ctx) })
	wg.Go(func() { s.Users, users = source.BusiestUsers(ctx, prefix, mostUsers) })
	wg.Wait()
	return s, cmp.Or(stats, history, users) // they are likely to say the same
}
