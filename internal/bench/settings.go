package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Settings are the parameters of a scenario. Each scenario uses some of them.
type Settings struct {
	Runs        int           // runs per target
	Connections int           // maximum number of requests in flight
	Limit       int           // maximum number of streams per user on targets that are started
	TTL         time.Duration // of streams on targets that are started

	Rate     float64       // arrivals per second; 0 means as fast as the target answers
	Duration time.Duration // of the measurement
	Warmup   time.Duration // before the measurement
	Users    int64         // users, who take turns
	Viewers  int64         // concurrent streams
	PerUser  int64         // viewers per user
	Over     time.Duration // time over which the requests of a storm are spread

	Heartbeat   time.Duration // interval between a viewer's heartbeats
	Batch       int           // heartbeats per request; 1 means the call for a single heartbeat
	Session     time.Duration // mean time until a viewer's session ends; 0 for no end
	SwitchShare float64       // share of ended sessions whose viewer starts another stream in place of the old one
	OtherStarts float64       // starts and stops of other users per second
	FillTimeout time.Duration // maximum time for starting the streams of one step
	Restart     bool          // restart the target at the end and measure how long that takes
}

// A SettingError is an invalid setting. Setting is the name of its flag.
type SettingError struct{ Setting, Text string }

func (e SettingError) Error() string { return "--" + e.Setting + ": " + e.Text }

// Check returns a SettingError for the first setting that is out of its range.
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
		{s.Rate >= 0 && s.Rate <= 1e6, "rate", "want max, or up to 1000000 per second"},
		{s.Duration >= 0 && s.Warmup >= 0, "duration", "want 0s or more"},
		{s.PerUser >= 1 && s.PerUser <= 1000, "per-user", "want 1 to 1000"},
		{s.Users >= 0, "users", "want 1 or more"},
		{s.Viewers >= 0 && s.Viewers <= 20_000_000, "viewers", "want 1 to 20000000"},
		{s.Over >= 0, "over", "want a positive duration"},
		{s.Batch >= 1 && s.Batch <= maxBatch, "batch", fmt.Sprintf("want 1 to %d", maxBatch)},
		{s.Heartbeat == 0 || s.Heartbeat >= 100*time.Millisecond, "heartbeat", "want 100ms or more"},
		{s.Session == 0 || s.Session >= time.Second, "session", "want 1s or more, or 0s for no end"},
		{s.FillTimeout >= 0, "fill-timeout", "want a positive duration"},
		{s.SwitchShare >= 0 && s.SwitchShare <= 1, "switch", "want a share of 0 to 1"},
		{s.OtherStarts >= 0 && s.OtherStarts <= 1e6, "others", "want 0 to 1000000 per second"},
	} {
		if !c.ok {
			return SettingError{c.setting, c.text}
		}
	}
	return nil
}

// checkCounts returns a SettingError if there are fewer users or viewers than
// connections.
func (s Settings) checkCounts() error {
	switch {
	case s.Users > 0 && s.Users < int64(s.Connections):
		return SettingError{"users", fmt.Sprintf("want at least as many as connections (%d), "+
			"so that the calls of one user do not overlap", s.Connections)}
	case s.Viewers > 0 && s.Viewers < int64(s.Connections):
		return SettingError{"viewers", fmt.Sprintf("want at least as many as connections (%d)", s.Connections)}
	}
	return nil
}

// A Scenario is one kind of load.
type Scenario struct {
	Name  string
	Short string   // a phrase for lists
	Long  string   // how the scenario works
	Uses  []string // flag names of the settings that not all scenarios use
	// Defaults suit a laptop.
	Defaults Settings

	separateCPUs bool // the generator must not use the processors of the target
	needsLimit   bool // it measures the limit, so a target must enforce one
	run          func(context.Context, *targetRun) error
}

// Find returns the scenario called name.
func Find(name string) (Scenario, error) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, nil
		}
	}
	return Scenario{}, errors.New("there is no scenario " + name)
}

// modified returns s after a change.
func modified(s Settings, change func(*Settings)) Settings {
	change(&s)
	return s
}

// Scenarios returns all scenarios.
func Scenarios() []Scenario {
	base := Settings{Runs: 1, Connections: 128, Limit: 3, TTL: 90 * time.Second, PerUser: 1, Batch: 1}
	quick := base
	quick.Runs, quick.Duration, quick.Warmup = 5, 5*time.Second, time.Second
	storm := base
	storm.Runs, storm.Viewers, storm.Over = 5, 20_000, 5*time.Second
	return []Scenario{
		{
			Name: "lifecycle", Short: "Start and stop streams", run: lifecycle,
			Long: "Each arrival starts a stream and stops it as soon as the start is answered. The users take turns.",
			Uses: []string{"rate", "duration", "warmup", "users"}, Defaults: modified(quick, func(s *Settings) { s.Users = 100_000 }),
		},
		{
			Name: "heartbeat", Short: "Renew live streams", run: heartbeat,
			Long: "The streams of all viewers are started first. Then the viewers send heartbeats in turn. A server may answer\n" +
				"a heartbeat from memory if the stream was renewed recently: to measure renewals, set --viewers to at least\n" +
				"the rate times a third of the TTL.",
			Uses:     []string{"rate", "duration", "warmup", "viewers", "batch"},
			Defaults: modified(quick, func(s *Settings) { s.Viewers = 10_000 }),
		},
		{
			Name: "refused", Short: "Refuse starts of users who are at the limit", run: refusals, needsLimit: true,
			Long: "Streams are started up to the limit of every user first. Then the users try to start more.",
			Uses: []string{"rate", "duration", "warmup", "users"}, Defaults: modified(quick, func(s *Settings) { s.Users = 1_000 }),
		},
		{
			Name: "startstorm", Short: "Start the streams of all viewers within a few seconds", run: startStorm,
			Long: "Starts arrive at a constant rate. With --per-user above the limit, exactly the excess must be refused.\n" +
				"Afterwards the streams of every user are listed: no stream may be missing, and no user over the limit.",
			Uses: []string{"viewers", "over", "per-user"}, Defaults: storm,
		},
		{
			Name: "stopstorm", Short: "Stop the streams of all viewers within a few seconds", run: stopStorm,
			Long: "The streams of all viewers are started first. Then stops arrive at a constant rate. Afterwards the streams\n" +
				"of every user are listed: none may be left.",
			Uses: []string{"viewers", "over", "per-user"}, Defaults: storm,
		},
		{
			Name: "blackout", Short: "Start all streams again after their heartbeats stopped for a TTL", run: blackout, needsLimit: true,
			Long: "Streams are started up to the limit of every user, and all heartbeats stop at once. Two seconds after the\n" +
				"last stream has expired, all viewers start again: each needs the slot of an expired stream. Other users start\n" +
				"and stop streams throughout.",
			Uses: []string{"viewers", "over", "others"},
			Defaults: modified(base, func(s *Settings) {
				s.Viewers, s.Over, s.OtherStarts, s.TTL = 50_000, 5*time.Second, 100, 10*time.Second
			}),
		},
		{
			Name: "mixed", Short: "Viewers who send heartbeats, switch streams and leave", run: steadyLoad,
			Long: "The streams of all viewers are started first. Then the viewers send heartbeats. When a session ends, the\n" +
				"viewer starts another stream in place of the old one (--switch is the share of these), or stops and a new\n" +
				"viewer starts.",
			Uses: []string{"duration", "viewers", "per-user", "heartbeat", "batch", "session", "switch", "others", "restart"},
			Defaults: modified(base, func(s *Settings) {
				s.Viewers, s.Heartbeat, s.Session, s.SwitchShare, s.Duration = 10_000, 30*time.Second, time.Minute, 0.5, time.Minute
			}),
		},
		{
			Name: "soak", Short: "Keep many streams alive for minutes", run: steadyLoad,
			Long: "The streams of all viewers are started first. The viewers send heartbeats until the end, when every stream\n" +
				"must exist. Other users start and stop streams throughout. Memory is read from /proc.",
			Uses: []string{"duration", "viewers", "per-user", "heartbeat", "batch", "session", "switch", "others", "restart"},
			Defaults: modified(base, func(s *Settings) {
				s.Viewers, s.Heartbeat, s.OtherStarts, s.Duration = 100_000, 30*time.Second, 500, 5*time.Minute
			}),
		},
		overloadScenario(base),
		scaleScenario(base),
	}
}
