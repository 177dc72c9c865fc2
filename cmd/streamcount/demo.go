package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/api/apitype"
	"streamcount/client"
)

const (
	demoViewers = 20
	// demoGreedy of them start more streams than the limit allows, where that
	// takes no more than demoMost streams.
	demoGreedy = 3
	demoMost   = 8
	// Streams that crash hold their slot for a TTL. Where that is longer than
	// this, none crashes.
	demoMaxTTL = 10 * time.Minute
	// user1Session makes a restarted demo take over the stream that the last
	// one left, so that user 1 has exactly one.
	user1Session = "demo-user-1"
)

// A demo simulates viewers through the public API.
type demo struct {
	c   *client.Client
	cfg *Config
	log *slog.Logger
}

// runDemo plays until ctx ends. Then all streams go silent; what they leave is
// taken over after a restart, or lapses.
func runDemo(ctx context.Context, server string, cfg *Config, log *slog.Logger) error {
	c, err := client.New(client.Config{Server: server, Log: log})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d := &demo{c: c, cfg: cfg, log: log}
	g := new(errgroup.Group)
	g.Go(func() error { d.keepUser1(ctx); return nil })
	for i := 2; i < demoViewers+2; i++ {
		g.Go(func() error { d.watch(ctx, fmt.Sprintf("viewer-%02d", i-1), i-2 < demoGreedy); return nil })
	}
	err = g.Wait()
	_ = c.Close(ctx) // ctx has ended, so this only joins the heartbeats
	return err
}

// keepUser1 keeps one stream of user 1 alive, whatever others do to it.
func (d *demo) keepUser1(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := d.c.Start(ctx, "1", apitype.Start{
			Session: user1Session,
			Device:  &apitype.Device{ID: "demo-tv", Name: "Living room TV", Type: "tv"},
			Content: &apitype.Content{ID: "metropolis", Title: "Metropolis"},
		})
		if err != nil {
			d.log.DebugContext(ctx, "demo: start", "user", "1", "err", err)
			rest(ctx, 2*time.Second)
			continue
		}
		select {
		case <-s.Done():
			d.yieldUser1(ctx, s.Err())
		case <-ctx.Done():
		}
	}
}

// yieldUser1 waits until user 1 is without a stream if another node's demo took
// this one over: two that take turns would be a poor demonstration.
func (d *demo) yieldUser1(ctx context.Context, why error) {
	ended, ok := errors.AsType[*client.EndedError](why)
	taken := ok && ended.Reason == "replaced"
	for rest(ctx, time.Second); taken && ctx.Err() == nil; rest(ctx, 5*time.Second) {
		if _, err := d.c.List(ctx, "1"); isNotFound(err) {
			return
		}
	}
}

func isNotFound(err error) bool {
	p, ok := errors.AsType[*client.ProblemError](err)
	return ok && p.Problem.Status == 404
}

// watch is one viewer's evenings, one after the other.
func (d *demo) watch(ctx context.Context, user string, greedy bool) {
	for rest(ctx, upTo(15*time.Second)); ctx.Err() == nil; rest(ctx, 5*time.Second+upTo(25*time.Second)) {
		screens := 1 + rand.N(max(1, min(d.cfg.Limit, 3)))
		if greedy && d.cfg.Limit <= demoMost {
			screens = d.cfg.Limit + 1
		}
		g := new(errgroup.Group)
		for screen := range screens {
			g.Go(func() error { d.play(ctx, user, screen); return nil })
		}
		_ = g.Wait() // its functions return nil
	}
}

// play is one stream, from start to stop or crash.
func (d *demo) play(ctx context.Context, user string, screen int) {
	rest(ctx, upTo(8*time.Second))
	req := apitype.Start{Device: demoDevice(user, screen), Content: demoFilm()}
	playtime := 20*time.Second + upTo(70*time.Second)
	if rand.N(12) == 0 && d.cfg.TTL <= demoMaxTTL {
		// A crash is a stream that never sends a heartbeat.
		_, err := d.c.StartStream(ctx, user, req)
		d.logStart(ctx, user, err)
		rest(ctx, min(playtime, d.cfg.TTL/2))
		return
	}
	s, err := d.c.Start(ctx, user, req)
	if err != nil {
		d.logStart(ctx, user, err)
		return
	}
	evening := time.NewTimer(playtime)
	defer evening.Stop()
	select {
	case <-evening.C:
		if err := s.Stop(ctx); err != nil {
			d.log.DebugContext(ctx, "demo: stop", "user", user, "err", err)
		}
	case <-s.Done():
	case <-ctx.Done():
	}
}

func (d *demo) logStart(ctx context.Context, user string, err error) {
	if err != nil && !errors.Is(err, client.ErrLimit) && ctx.Err() == nil {
		d.log.DebugContext(ctx, "demo: start", "user", user, "err", err)
	}
}

func demoDevice(user string, screen int) *apitype.Device {
	devices := []apitype.Device{
		{Name: "Living room TV", Type: "tv"}, {Name: "Phone", Type: "phone"}, {Name: "Tablet", Type: "tablet"},
		{Name: "Laptop", Type: "browser"}, {Name: "Kitchen speaker", Type: "speaker"},
	}
	d := devices[screen%len(devices)]
	d.ID = fmt.Sprintf("%s-%d", user, screen)
	return &d
}

func demoFilm() *apitype.Content {
	films := []apitype.Content{
		{ID: "metropolis", Title: "Metropolis"}, {ID: "nosferatu", Title: "Nosferatu"},
		{ID: "the-general", Title: "The General"}, {ID: "sunrise", Title: "Sunrise"},
		{ID: "safety-last", Title: "Safety Last!"}, {ID: "the-kid", Title: "The Kid"},
	}
	return &films[rand.N(len(films))]
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(cmp.Or(d, time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func upTo(d time.Duration) time.Duration { return rand.N(d) }
