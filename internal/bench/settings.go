package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Settings are what a scenario goes by. Each scenario uses some of them.
type Settings struct {
	Runs        int           // how often each target is visited
	Connections int           // how many requests can be in flight
	Limit       int           // streams a user may have, of targets that are started
	TTL         time.Duration // of their streams

	Rate    float64       // arrivals a second; 0 means as fast as the target answers
	For     time.Duration // how long is measured
	Warmup  time.Duration // before that
	Users   int64         // who take turns
	Viewers int64         // who watch at the same time
	PerUser int64         // how many of them are one user's
	Over    time.Duration // in what time a storm's requests are due

	Heartbeat time.Duration // between two of a viewer
	Batch     int           // heartbeats a request; 1 means single ones
	Session   time.Duration // how long a viewer watches one thing; 0 is for ever
	Zap       float64       // share of session ends at which the same viewer watches on
	Others    float64       // starts (and stops) of other users a second meanwhile
	Restart   bool          // start the target anew at the end, and measure how long it takes
}

// A SettingError says what is wrong with which setting, by its flag's name.
type SettingError struct{ Setting, Text string }

func (e SettingError) Error() string { return "--" + e.Setting + ": " + e.Text }

// Check refuses settings that make no sense, or no measurement.
func (s Settings) Check() error {
	for _, c := range []struct {
		ok            bool
		setting, text string
	}{
		{s.Runs >= 1 && s.Runs <= 100, "runs", "want 1 to 100"},
		{s.Connections >= 1 && s.Connections <= 10_000, "connections", "want 1 to 10000"},
		{s.Limit >= 1 && s.Limit <= 60, "limit", "want 1 to 60"},
		{s.TTL >= 5*time.Second && s.TTL <= 24*time.Hour && s.TTL%time.Second == 0, "ttl",
			"want whole seconds, from 5s to 24h"},
		{s.Rate >= 0 && s.Rate <= 1e6, "rate", "want max, or up to 1000000 a second"},
		{s.For >= 0 && s.Warmup >= 0, "duration", "want 0s or more"},
		{s.PerUser >= 1 && s.PerUser <= 1000, "per-user", "want 1 to 1000"},
		{s.Users >= 0, "users", "want 1 or more"},
		{s.Viewers >= 0 && s.Viewers <= 20_000_000, "viewers", "want 1 to 20000000"},
		{s.Over >= 0, "over", "want a positive duration"},
		{s.Batch >= 1 && s.Batch <= maxBatch, "batch", fmt.Sprintf("want 1 to %d", maxBatch)},
		{s.Heartbeat == 0 || s.Heartbeat >= 100*time.Millisecond, "heartbeat", "want 100ms or more"},
		{s.Session == 0 || s.Session >= time.Second, "session", "want 1s or more, or 0s for ever"},
		{s.Zap >= 0 && s.Zap <= 1, "zap", "want a share of 0 to 1"},
		{s.Others >= 0 && s.Others <= 1e6, "others", "want 0 to 1000000 a second"},
	} {
		if !c.ok {
			return SettingError{c.setting, c.text}
		}
	}
	return nil
}

// needs refuses zero for what a scenario cannot do without.
func (s Settings) needs() error {
	switch {
	case s.Users > 0 && s.Users < int64(s.Connections):
		return SettingError{"users", fmt.Sprintf("want at least as many as connections (%d): "+
			"otherwise one user's calls would overlap", s.Connections)}
	case s.Viewers > 0 && s.Viewers < int64(s.Connections):
		return SettingError{"viewers", fmt.Sprintf("want at least as many as connections (%d)", s.Connections)}
	}
	return nil
}

// A Scenario is one kind of load.
type Scenario struct {
	Name  string
	Short string   // one line
	Long  string   // what is measured, and how
	Uses  []string // the settings besides those that all scenarios use, by their flags' names
	// Defaults are fit for a laptop.
	Defaults Settings

	apart  bool // what the generator takes must not be what the target lacks
	limits bool // it measures the limit, so a target without one has nothing to show
	run    func(context.Context, *visit) error
}

// Find returns the scenario of a name.
func Find(name string) (Scenario, error) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, nil
		}
	}
	return Scenario{}, errors.New("there is no scenario " + name)
}

// with is s after a change.
func with(s Settings, change func(*Settings)) Settings {
	change(&s)
	return s
}

// Scenarios are all there are.
func Scenarios() []Scenario {
	base := Settings{Runs: 1, Connections: 128, Limit: 3, TTL: 90 * time.Second, PerUser: 1, Batch: 1}
	quick := base
	quick.Runs, quick.For, quick.Warmup = 5, 5*time.Second, time.Second
	storm := base
	storm.Runs, storm.Viewers, storm.Over = 5, 20_000, 5*time.Second
	return []Scenario{
		{
			Name: "lifecycle", Short: "Start and stop streams", run: lifecycle,
			Long: "Each arrival starts a stream and stops it as soon as the start is answered. Its users take turns.",
			Uses: []string{"rate", "duration", "warmup", "users"}, Defaults: with(quick, func(s *Settings) { s.Users = 100_000 }),
		},
		{
			Name: "heartbeat", Short: "Renew streams that are being watched", run: heartbeat,
			Long: "The viewers are started first; then their heartbeats come in turn. With few viewers and a high rate the\n" +
				"same stream is renewed many times a second, which a server may answer from memory: take as many\n" +
				"viewers as the rate times a third of the TTL to measure renewals.",
			Uses:     []string{"rate", "duration", "warmup", "viewers", "batch"},
			Defaults: with(quick, func(s *Settings) { s.Viewers = 10_000 }),
		},
		{
			Name: "refused", Short: "Starts of users who are at the limit", run: refusals, limits: true,
			Long: "Every user is filled up to the limit first. Then they go on trying.",
			Uses: []string{"rate", "duration", "warmup", "users"}, Defaults: with(quick, func(s *Settings) { s.Users = 1_000 }),
		},
		{
			Name: "kickoff", Short: "Everybody starts within a few seconds", run: kickoff,
			Long: "Starts come at a constant rate. With --per-user above the limit the excess must be refused, and no more.\n" +
				"Afterwards every user is listed: nobody may have lost a stream, or be over the limit.",
			Uses: []string{"viewers", "over", "per-user"}, Defaults: storm,
		},
		{
			Name: "whistle", Short: "Everybody stops within a few seconds", run: whistle,
			Long: "All viewers are started first; their stops come at a constant rate. Afterwards every user is listed: nobody\n" +
				"may have a stream left.",
			Uses: []string{"viewers", "over", "per-user"}, Defaults: storm,
		},
		{
			Name: "blackout", Short: "Everybody falls silent, and comes back one TTL later", run: blackout, limits: true,
			Long: "Users are filled up to the limit and fall silent at once. Two seconds after the last of them has lapsed they\n" +
				"all start again: each needs the slot of a stream that died. Other users start and stop meanwhile.",
			Uses: []string{"viewers", "over", "others"},
			Defaults: with(base, func(s *Settings) {
				s.Viewers, s.Over, s.Others, s.TTL = 50_000, 5*time.Second, 100, 10*time.Second
			}),
		},
		{
			Name: "mixed", Short: "An evening: viewers who watch, zap and leave", run: audience,
			Long: "The viewers are started first. Then each sends heartbeats, and after a session ends: a share of them zap\n" +
				"(a start in place of their stream), the others stop and somebody else starts.",
			Uses: []string{"duration", "viewers", "per-user", "heartbeat", "batch", "session", "zap", "others", "restart"},
			Defaults: with(base, func(s *Settings) {
				s.Viewers, s.Heartbeat, s.Session, s.Zap, s.For = 10_000, 30*time.Second, time.Minute, 0.5, time.Minute
			}),
		},
		{
			Name: "soak", Short: "Many viewers for minutes: memory, lost streams, starts meanwhile", run: audience,
			Long: "The viewers are started first and send heartbeats until the end, when every one of them must be alive.\n" +
				"Other users start and stop meanwhile. The target's memory is read from /proc.",
			Uses: []string{"duration", "viewers", "per-user", "heartbeat", "batch", "session", "zap", "others", "restart"},
			Defaults: with(base, func(s *Settings) {
				s.Viewers, s.Heartbeat, s.Others, s.For = 100_000, 30*time.Second, 500, 5*time.Minute
			}),
		},
		overloadScenario(base),
	}
}
