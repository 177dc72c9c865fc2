// Package bench measures a streamcount node and its peers over HTTP. A scenario is a
// kind of load: a steady one, a mixed one, or a storm of starts, stops or restarts.
// Every answer is checked, so that no speed is reported for a limiter that miscounts.
//
// A benchmark consists of runs. In each run every target is measured once, in turn, so
// that a disturbance of the machine affects all of them. A target that is not already
// running is started for its run and stopped after it.
package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"streamcount/internal/bench/launch"
	"streamcount/internal/bench/load"
)

// The names of the targets that are no peers.
const (
	Streamcount = "streamcount"
	baseName    = "base" // the node that Config.Against names
)

// A Target is a server to measure.
type Target struct {
	Name          string // Streamcount, baseName or the name of a peer
	EnforcesLimit bool   // its answers must respect the limit and report which streams exist
}

// Config describes one benchmark.
type Config struct {
	Scenario Scenario
	Settings Settings
	Peers    []Target
	Server   string // URL of a running node; "" starts one
	Against  string // path of a second streamcount binary, whose node is measured like a peer; "" for none
	Launch   launch.Config
	Progress *Progress
}

// Run measures every target Settings.Runs times, in turn, and returns a report. Faults
// of the targets are in the report and are no error.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	machine, err := inspectMachine(cfg.Launch.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Launch.SeparateCPUs = cfg.Scenario.separateCPUs
	r := newReport(cfg, machine)
	defer cfg.Progress.clear()
	targets := cfg.targets()
	for run := range cfg.Settings.Runs {
		for turn := range targets {
			i := turn
			if run%2 == 1 { // in reverse order, so that a slow change of the machine affects all targets equally
				i = len(targets) - 1 - turn
			}
			target := targets[i]
			title := fmt.Sprintf("run %d of %d, %s", run+1, cfg.Settings.Runs, target.Name)
			res, err := cfg.runTarget(ctx, target, title, r.faults[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", title, err)
			}
			r.results[i] = append(r.results[i], res)
		}
	}
	r.summarize()
	return r, nil
}

func (cfg Config) targets() []Target {
	list := []Target{{Name: Streamcount, EnforcesLimit: true}}
	if cfg.Against != "" {
		list = append(list, Target{Name: baseName, EnforcesLimit: true})
	}
	return append(list, cfg.Peers...)
}

// Check returns a SettingError for the first setting that is invalid.
func (cfg Config) Check() error {
	s := cfg.Settings
	if err := s.Check(); err != nil {
		return err
	}
	for _, use := range cfg.Scenario.Uses {
		zero := map[string]bool{
			"duration": s.Duration == 0, "users": s.Users == 0, "viewers": s.Viewers == 0, "over": s.Over == 0,
			"heartbeat": s.Heartbeat == 0, "fill-timeout": s.FillTimeout == 0,
		}
		if zero[use] {
			return SettingError{use, "want more than 0"}
		}
	}
	if s.Heartbeat > s.TTL/2 && cfg.Server == "" {
		return SettingError{"heartbeat", fmt.Sprintf("want at most half the TTL (%v): streams would expire", s.TTL)}
	}
	for _, p := range cfg.Peers {
		if cfg.Scenario.needsLimit && !p.EnforcesLimit {
			return SettingError{"peer", fmt.Sprintf("%s enforces no limit, which %s measures", p.Name, cfg.Scenario.Name)}
		}
	}
	if strings.Contains(strings.Join(cfg.Launch.Etcd, ","), "@") {
		return SettingError{"etcd-endpoints", "want no user in an address: an etcd without authentication is required"}
	}
	if cfg.Server != "" {
		if s.Restart {
			return SettingError{"restart", "cannot be combined with --server"}
		}
		if cfg.Against != "" {
			return SettingError{"against", "cannot be combined with --server"}
		}
		if _, err := load.NewClient(cfg.Server, answerTimeout); err != nil {
			return SettingError{"server", err.Error()}
		}
	}
	return s.checkCounts()
}

// runTarget runs the scenario on one target.
func (cfg Config) runTarget(ctx context.Context, target Target, title string, t *faultCounter) (_ result, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tr := &targetRun{ctx: ctx, settings: cfg.Settings, enforcesLimit: target.EnforcesLimit, faults: t, userPrefix: "b" + randomToken()}
	tr.setPhase("starting")
	defer cfg.Progress.follow(title, tr)()
	url := strings.TrimSuffix(cfg.Server, "/")
	if target.Name != Streamcount || url == "" {
		spec := launch.Spec{Token: tr.userPrefix, Limit: cfg.Settings.Limit, TTL: cfg.Settings.TTL}
		switch target.Name {
		case Streamcount:
		case baseName:
			spec.Binary = cfg.Against
		default:
			spec.Peer = target.Name
		}
		tr.server, err = cfg.Launch.Start(ctx, spec)
		if err != nil {
			return result{}, causeOf(ctx, err)
		}
		defer func() {
			tr.setPhase("stopping")
			cancel(nil) // the process now ends on request
			err = launch.JoinErrors(err, tr.server.Stop(ctx))
		}()
		url = tr.server.URL
		// A target that exits ends the run.
		exited := tr.server.Done()
		go func() {
			select {
			case <-exited:
				if !cfg.Settings.Restart && ctx.Err() == nil {
					cancel(tr.server.ExitError())
				}
			case <-ctx.Done():
			}
		}()
	}
	if tr.client, err = load.NewClient(url, answerTimeout); err != nil {
		return result{}, err
	}
	if err := tr.handshake(); err != nil {
		return result{}, causeOf(ctx, err)
	}
	tr.result.idleMemory = tr.usage().Resident
	if err := cfg.Scenario.run(ctx, tr); err != nil {
		return result{}, causeOf(ctx, err)
	}
	return tr.result, tr.checkTarget()
}

// causeOf returns the cause of the end of ctx, which is the reason of err, or err if
// ctx has not ended.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// randomToken returns a prefix for user ids that no other run uses.
func randomToken() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
