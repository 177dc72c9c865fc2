package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"streamcount/internal/bench/load"
)

// A Target is something to measure.
type Target struct {
	Name   string // Streamcount, or a peer's
	Counts bool   // it limits streams and knows which are alive, so its answers are held to that
}

// Config is one benchmark.
type Config struct {
	Scenario Scenario
	Settings Settings
	Peers    []Target
	Server   string // the URL of a node that runs already; "" starts one
	Launch   Launch
	Progress *Progress
}

// Run visits every target Settings.Runs times, in turn, and reports. An error
// means that there is nothing to report; faults of the targets are in the
// report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	machine, err := thisMachine(cfg.Launch.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Launch.apart = cfg.Scenario.apart
	r := newReport(cfg, machine)
	defer cfg.Progress.stop()
	for run := range cfg.Settings.Runs {
		for i, target := range cfg.targets() {
			title := fmt.Sprintf("run %d of %d, %s", run+1, cfg.Settings.Runs, target.Name)
			res, err := cfg.visit(ctx, target, title, r.tallies[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", title, err)
			}
			r.results[i] = append(r.results[i], res)
		}
	}
	r.sumUp()
	return r, nil
}

func (cfg Config) targets() []Target {
	return append([]Target{{Name: Streamcount, Counts: true}}, cfg.Peers...)
}

func (cfg Config) check() error {
	s := cfg.Settings
	if err := s.Check(); err != nil {
		return err
	}
	for _, use := range cfg.Scenario.Uses {
		zero := map[string]bool{
			"duration": s.For == 0, "users": s.Users == 0, "viewers": s.Viewers == 0, "over": s.Over == 0,
			"heartbeat": s.Heartbeat == 0,
		}
		if zero[use] {
			return SettingError{use, "want more than 0"}
		}
	}
	if s.Heartbeat > s.TTL/2 && cfg.Server == "" {
		return SettingError{"heartbeat", fmt.Sprintf("want at most half the TTL (%v): streams would lapse", s.TTL)}
	}
	for _, p := range cfg.Peers {
		if cfg.Scenario.limits && !p.Counts {
			return SettingError{"peer", fmt.Sprintf("%s keeps no limit, and %s measures that", p.Name, cfg.Scenario.Name)}
		}
	}
	if strings.Contains(strings.Join(cfg.Launch.Etcd, ","), "@") {
		return SettingError{"etcd-endpoints", "want no user in an address: bench takes an etcd without authentication"}
	}
	if cfg.Server != "" {
		if s.Restart {
			return SettingError{"restart", "is for a node that bench started: leave server out"}
		}
		if _, err := load.NewClient(cfg.Server, answerTimeout); err != nil {
			return SettingError{"server", err.Error()}
		}
	}
	return s.needs()
}

// visit runs the scenario once on one target.
func (cfg Config) visit(ctx context.Context, target Target, title string, t *tally) (_ result, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &visit{ctx: ctx, s: cfg.Settings, counts: target.Counts, tally: t, space: "b" + token()}
	v.phase("starting")
	defer cfg.Progress.follow(title, v)()
	url := strings.TrimSuffix(cfg.Server, "/")
	if target.Name != Streamcount || url == "" {
		v.server, err = cfg.Launch.start(ctx, target.Name, v.space, cfg.Settings.Limit, cfg.Settings.TTL)
		if err != nil {
			return result{}, cmpCause(ctx, err)
		}
		defer func() {
			v.phase("stopping")
			err = join(err, v.server.stop(ctx))
		}()
		url = v.server.url
		// A target that dies ends the visit.
		process := v.server.process
		go func() {
			select {
			case <-process.Done():
				if !cfg.Settings.Restart {
					cancel(v.server.failure())
				}
			case <-ctx.Done():
			}
		}()
	}
	if v.client, err = load.NewClient(url, answerTimeout); err != nil {
		return result{}, err
	}
	if err := v.greet(); err != nil {
		return result{}, cmpCause(ctx, err)
	}
	v.result.idle = v.usage().resident
	if err := cfg.Scenario.run(ctx, v); err != nil {
		return result{}, cmpCause(ctx, err)
	}
	return v.result, v.check()
}

// cmpCause prefers why ctx ended to what followed from that.
func cmpCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// token makes the users of a visit its own.
func token() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
