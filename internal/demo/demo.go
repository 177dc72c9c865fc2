// Package demo simulates viewers, who start and stop streams through the public API.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/api/apitype"
	"streamcount/client"
	"streamcount/internal/retry"
)

const (
	viewers = 20
	// overLimitViewers of them start one stream more than the limit allows, unless the
	// limit is higher than maxOverLimit.
	overLimitViewers = 3
	maxOverLimit     = 8
	// maxCrashTTL is the highest TTL at which streams crash: a crashed stream occupies its
	// slot for a TTL.
	maxCrashTTL = 10 * time.Minute
	// user1Session is the session of user 1. With it, a restarted demo takes over the
	// stream that the previous one left, so user 1 always has exactly one stream.
	user1Session = "demo-user-1"
)

// Limits is the configuration of the service that the simulation depends on.
type Limits struct {
	Streams int // that a user may have at once
	TTL     time.Duration
}

// A simulation is a set of viewers.
type simulation struct {
	client *client.Client
	limits Limits
	log    *slog.Logger
}

// Run simulates viewers of the service at url until ctx ends. The streams that are active
// then receive no further heartbeat, so they expire.
func Run(ctx context.Context, url string, limits Limits, log *slog.Logger) error {
	c, err := client.New(client.Config{Server: url, Log: log})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	s := &simulation{client: c, limits: limits, log: log}
	g := new(errgroup.Group)
	g.Go(func() error { s.runUser1(ctx); return nil })
	for i := range viewers {
		g.Go(func() error { s.runViewer(ctx, fmt.Sprintf("viewer-%02d", i+1), i < overLimitViewers); return nil })
	}
	err = g.Wait()
	_ = c.Close(ctx) // ctx has ended, so Close stops the heartbeats but no stream
	return err
}

// runUser1 keeps one stream of user 1 active, and starts another one when it ends.
func (s *simulation) runUser1(ctx context.Context) {
	for ctx.Err() == nil {
		stream, err := s.client.Start(ctx, "1", apitype.Start{
			Session: user1Session,
			Device:  &apitype.Device{ID: "demo-tv", Name: "Living room TV", Type: "tv"},
			Content: &apitype.Content{ID: "metropolis", Title: "Metropolis"},
		})
		if err != nil {
			s.log.DebugContext(ctx, "demo: start failed", "user", "1", "err", err)
			sleep(ctx, 2*time.Second)
			continue
		}
		select {
		case <-stream.Done():
			s.waitAfterTakeover(ctx, stream.Err())
		case <-ctx.Done():
		}
	}
}

// waitAfterTakeover delays the next start of user 1. If the demo of another node has taken
// the stream over, it waits until user 1 has no stream, so that two demos do not take it
// over from each other forever.
func (s *simulation) waitAfterTakeover(ctx context.Context, ended error) {
	end, ok := errors.AsType[*client.EndedError](ended)
	replaced := ok && end.Reason == "replaced"
	for sleep(ctx, time.Second); replaced && ctx.Err() == nil; sleep(ctx, 5*time.Second) {
		if _, err := s.client.List(ctx, "1"); isNotFound(err) {
			return
		}
	}
}

func isNotFound(err error) bool {
	p, ok := errors.AsType[*client.ProblemError](err)
	return ok && p.Problem.Status == http.StatusNotFound
}

// runViewer lets one user watch on some screens at once, pause, and watch again.
func (s *simulation) runViewer(ctx context.Context, user string, overLimit bool) {
	for sleep(ctx, randUpTo(15*time.Second)); ctx.Err() == nil; sleep(ctx, 5*time.Second+randUpTo(25*time.Second)) {
		screens := 1 + rand.N(max(1, min(s.limits.Streams, 3)))
		if overLimit && s.limits.Streams <= maxOverLimit {
			screens = s.limits.Streams + 1
		}
		g := new(errgroup.Group)
		for screen := range screens {
			g.Go(func() error { s.runStream(ctx, user, screen); return nil })
		}
		_ = g.Wait() // its functions return nil
	}
}

// runStream starts a stream of the user and stops it after some time. Some streams crash:
// they send no heartbeat and are never stopped.
func (s *simulation) runStream(ctx context.Context, user string, screen int) {
	sleep(ctx, randUpTo(8*time.Second))
	req := apitype.Start{Device: device(user, screen), Content: randomContent()}
	playTime := 20*time.Second + randUpTo(70*time.Second)
	if rand.N(12) == 0 && s.limits.TTL <= maxCrashTTL {
		_, err := s.client.StartStream(ctx, user, req)
		s.logStart(ctx, user, err)
		sleep(ctx, min(playTime, s.limits.TTL/2))
		return
	}
	stream, err := s.client.Start(ctx, user, req)
	if err != nil {
		s.logStart(ctx, user, err)
		return
	}
	end := time.NewTimer(playTime)
	defer end.Stop()
	select {
	case <-end.C:
		if err := stream.Stop(ctx); err != nil {
			s.log.DebugContext(ctx, "demo: stop failed", "user", user, "err", err)
		}
	case <-stream.Done():
	case <-ctx.Done():
	}
}

func (s *simulation) logStart(ctx context.Context, user string, err error) {
	if err != nil && !errors.Is(err, client.ErrLimit) && ctx.Err() == nil {
		s.log.DebugContext(ctx, "demo: start failed", "user", user, "err", err)
	}
}

func device(user string, screen int) *apitype.Device {
	devices := []apitype.Device{
		{Name: "Living room TV", Type: "tv"}, {Name: "Phone", Type: "phone"}, {Name: "Tablet", Type: "tablet"},
		{Name: "Laptop", Type: "browser"}, {Name: "Kitchen speaker", Type: "speaker"},
	}
	d := devices[screen%len(devices)]
	d.ID = fmt.Sprintf("%s-%d", user, screen)
	return &d
}

func randomContent() *apitype.Content {
	films := []apitype.Content{
		{ID: "metropolis", Title: "Metropolis"}, {ID: "nosferatu", Title: "Nosferatu"},
		{ID: "the-general", Title: "The General"}, {ID: "sunrise", Title: "Sunrise"},
		{ID: "safety-last", Title: "Safety Last!"}, {ID: "the-kid", Title: "The Kid"},
	}
	return &films[rand.N(len(films))]
}

// sleep waits for d or until ctx ends, which callers check.
func sleep(ctx context.Context, d time.Duration) { _ = retry.Sleep(ctx, d) }

func randUpTo(d time.Duration) time.Duration { return rand.N(d) }
