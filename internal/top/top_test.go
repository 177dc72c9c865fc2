package top

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/display"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden screens")

// noon is the current time of the tests.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) *apitype.Time { return &apitype.Time{Time: noon.Add(-d)} }

// fixture returns a snapshot with texts that contain control characters.
func fixture() Snapshot {
	var s Snapshot
	s.Stats = apitype.Stats{
		Streams: 12345, Users: 6789, UsersAtLimit: 321, Refused: 42,
		Regions: map[string]int{"eu": 9000, "us": 3000, "ap\x1b[2J": 345}, Via: map[string]int{"edge": 2345},
		Node:    apitype.Node{ID: "node-a", Region: "eu", Version: "0.1.0"},
		Rates:   apitype.Rates{Starts: 12.34, Stops: 11.9, Expiries: 0.1, Refusals: 0.4, Heartbeats: 411.6},
		Latency: apitype.Latency{Start: apitype.Percentiles{Count: 9, P50: 1.25, P95: 3, P99: 4.5}},
		Nodes: []apitype.NodeReport{
			{Node: apitype.Node{ID: "node-b", Region: "us", Version: "0.1.0", StartedAt: before(50 * time.Hour)},
				Admitted: 5, Refused: 1, ReportedAt: before(65 * time.Second)},
			{Node: apitype.Node{ID: "node-a", Region: "eu", Version: "0.1.0", StartedAt: before(90 * time.Second)},
				Admitted: 1234, Refused: 42, ReportedAt: before(3 * time.Second)},
		},
		Shards: []apitype.Shard{{Name: "default", Leader: "m1", Members: 2, Streams: 12345, Etcd: []apitype.EtcdMember{
			{Name: "m0", Version: "3.7.3", DBSize: 5 << 20, DBInUse: 1 << 20, Lag: 3, Alarms: []string{"NOSPACE"}},
			{Name: "m1", Leader: true, Version: "3.7.3", DBSize: 6 << 20, DBInUse: 2 << 20},
			{Name: "m2", Error: "connection refused"},
		}}, {Name: "spare", Error: "no answer"}},
	}
	s.History.EverySeconds = 10
	for i := range 120 {
		s.History.Samples = append(s.History.Samples, apitype.Sample{
			At: before(time.Duration(120-i) * 10 * time.Second), Streams: 10000 + 20*i, Starts: int64(i % 40 * 5), Refusals: int64(i / 100 * 7),
		})
	}
	for i := range 30 {
		s.Users.Users = append(s.Users.Users, apitype.TopUser{UserID: fmt.Sprintf("user-%02d", i), Streams: 4 - (i+9)/10, Limit: 3})
	}
	s.Users.Users[3].UserID = "m\x1b]0;owned\x07aya"
	s.Users.More = true
	s.Refused = []apitype.RefusedCount{{Limit: 3, Users: 12, Starts: 40}, {Name: "tv", Limit: 1, Users: 31, Starts: 77}, {Name: "uhd", Users: 2, Starts: 5}}
	return s
}

// newTestModel returns a model with the fixture on a screen of this size.
func newTestModel(width, height int) model {
	m := newModel(context.Background(), Config{
		Server: "http://127.0.0.1:3000", Every: time.Second, Explain: func(err error) string { return err.Error() },
	})
	m.now = func() time.Time { return noon }
	return update(m, tea.WindowSizeMsg{Width: width, Height: height}, snapshotMsg{data: fixture()})
}

func update(m model, msgs ...tea.Msg) model {
	for _, msg := range msgs {
		next, _ := m.Update(msg)
		m = next.(model)
	}
	return m
}

// key returns the message of a key.
func key(name string) tea.KeyPressMsg {
	codes := map[string]tea.Key{
		"tab": {Code: tea.KeyTab}, "shift+tab": {Code: tea.KeyTab, Mod: tea.ModShift}, "esc": {Code: tea.KeyEscape},
		"enter": {Code: tea.KeyEnter}, "backspace": {Code: tea.KeyBackspace}, "space": {Code: ' ', Text: " "},
		"down": {Code: tea.KeyDown}, "up": {Code: tea.KeyUp}, "end": {Code: tea.KeyEnd}, "pgdown": {Code: tea.KeyPgDown},
		"ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+u": {Code: 'u', Mod: tea.ModCtrl},
	}
	if k, ok := codes[name]; ok {
		return tea.KeyPressMsg(k)
	}
	return tea.KeyPressMsg{Code: []rune(name)[0], Text: name}
}

func press(m model, keys string) model {
	for name := range strings.FieldsSeq(keys) {
		m = update(m, key(name))
	}
	return m
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

func TestView_Screens(t *testing.T) {
	for name, tc := range map[string]struct {
		width, height int
		keys          string
	}{
		"users-80x24":   {80, 24, ""},
		"nodes-80x24":   {80, 24, "3"},
		"etcd-80x24":    {80, 24, "4"},
		"limits-80x24":  {80, 24, "5"},
		"help-80x24":    {80, 24, "?"},
		"users-140x40":  {140, 40, ""},
		"regions-60x15": {60, 15, "tab"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, press(newTestModel(tc.width, tc.height), tc.keys).draw())
		})
	}
}

// At any size the screen has exactly the height of the terminal and no line is wider than it.
// Colours change nothing else, and are the only escape sequences.
func TestView_FitsAnySize(t *testing.T) {
	for _, keys := range []string{"", "3", "4", "?", "/ x y z", "p"} {
		for width := 1; width < 200; width += 13 {
			for height := 1; height < 60; height += 7 {
				m := press(newTestModel(width, height), keys)
				plain := m.draw()
				m.cfg.Screen.Colour = true
				coloured := m.draw()
				assert.Equal(t, height, len(strings.Split(plain, "\n")), "%dx%d %s", width, height, keys)
				assert.NotContains(t, plain, "\x1b")
				assert.Regexp(t, `^([^\x1b]|\x1b\[[0-9;]*m)*$`, coloured)
				assert.Equal(t, plain, strings.ReplaceAll(ansi.Strip(coloured), "\a", ""), "%dx%d %s", width, height, keys)
				for line := range strings.SplitSeq(plain, "\n") {
					assert.LessOrEqual(t, display.Width(line), width, "%q", line)
				}
			}
		}
	}
}

func TestKeys(t *testing.T) {
	for keys, check := range map[string]func(*assert.Assertions, model){
		"tab":           func(is *assert.Assertions, m model) { is.Equal(regions, m.panel) },
		"shift+tab":     func(is *assert.Assertions, m model) { is.Equal(limits, m.panel) },
		"3":             func(is *assert.Assertions, m model) { is.Equal(nodes, m.panel) },
		"? 2":           func(is *assert.Assertions, m model) { is.Equal(regions, m.panel); is.False(m.help) },
		"? ?":           func(is *assert.Assertions, m model) { is.False(m.help) },
		"? esc":         func(is *assert.Assertions, m model) { is.False(m.help) },
		"p":             func(is *assert.Assertions, m model) { is.True(m.paused) },
		"p space":       func(is *assert.Assertions, m model) { is.False(m.paused) },
		"s":             func(is *assert.Assertions, m model) { is.Equal("LIMIT↓", headOf(m)) },
		"s s s r":       func(is *assert.Assertions, m model) { is.Equal("USER↑", headOf(m)) },
		"s s s":         func(is *assert.Assertions, m model) { is.Equal(`m\x1b]0;owned\x07aya`, firstUser(m)) },
		"r":             func(is *assert.Assertions, m model) { is.Equal("user-21", firstUser(m)) },
		"down down up":  func(is *assert.Assertions, m model) { is.Equal(`m\x1b]0;owned\x07aya`, firstUser(m)) },
		"up":            func(is *assert.Assertions, m model) { is.Equal("user-00", firstUser(m)) },
		"end":           func(is *assert.Assertions, m model) { is.Contains(m.draw(), "18-30 of 30") },
		"end home":      func(is *assert.Assertions, m model) { is.Equal("user-00", firstUser(m)) },
		"pgdown":        func(is *assert.Assertions, m model) { is.Contains(m.draw(), "13-25 of 30") },
		"3 / m a":       func(is *assert.Assertions, m model) { is.True(m.editing); is.Equal(users, m.panel) },
		"/ q ? p":       func(is *assert.Assertions, m model) { is.Equal("q?p", m.prefix); is.False(m.paused || m.help) },
		"/ m backspace": func(is *assert.Assertions, m model) { is.Empty(m.prefix); is.True(m.editing) },
		"/ m a enter":   func(is *assert.Assertions, m model) { is.Equal("ma", m.prefix); is.False(m.editing) },
		"/ m enter / a esc": func(is *assert.Assertions, m model) {
			is.Equal("m", m.prefix, "as it was")
			is.False(m.editing)
		},
		"/ m enter esc": func(is *assert.Assertions, m model) { is.Empty(m.prefix) },
		"/ m ctrl+u x":  func(is *assert.Assertions, m model) { is.Equal("x", m.prefix) },
	} {
		t.Run(keys, func(t *testing.T) {
			keys := strings.ReplaceAll(keys, "home", "g")
			check(assert.New(t), press(newTestModel(80, 24), keys))
		})
	}
	for _, name := range []string{"q", "ctrl+c"} {
		_, cmd := newTestModel(80, 24).Update(key(name))
		assert.Equal(t, tea.QuitMsg{}, cmd(), name)
	}
	_, cmd := press(newTestModel(80, 24), "/").Update(key("ctrl+c"))
	assert.Equal(t, tea.QuitMsg{}, cmd(), "also while typing")
}

func headOf(m model) string {
	for _, word := range strings.Fields(m.draw()) {
		if strings.ContainsAny(word, "↑↓") {
			return word
		}
	}
	return ""
}

func firstUser(m model) string {
	_, after, _ := strings.Cut(m.draw(), "FREE")
	return strings.Fields(strings.TrimLeft(after, "↓↑"))[0]
}

func TestPaste(t *testing.T) {
	m := update(press(newTestModel(80, 24), "/"), tea.PasteMsg{Content: "ma\x1b[2J y/a\n"})
	assert.Equal(t, "ma[2Jya", m.prefix)
	assert.Equal(t, m.prefix, update(m, tea.PasteMsg{Content: strings.Repeat("x", 200)}).prefix, "longer than a user id")
	assert.Empty(t, update(newTestModel(80, 24), tea.PasteMsg{Content: "q"}).prefix, "only while the prefix is edited")
}

func TestStale(t *testing.T) {
	m := newTestModel(80, 24)
	assert.Contains(t, m.draw(), "live")
	assert.Contains(t, update(m, snapshotMsg{err: errors.New("no answer")}).draw(), "STALE: 0s old", "the error is shown at once")
	m.now = func() time.Time { return noon.Add(12 * time.Second) }
	assert.Contains(t, m.draw(), "STALE: 12s old")
	m = update(m, snapshotMsg{err: errors.New("no server\x1b[2J answers"), periodic: true})
	assert.Contains(t, m.draw(), `unavailable: no server\x1b[2J answers`)
	assert.Contains(t, m.draw(), "12,345", "the last data is still shown")
	m = update(m, snapshotMsg{data: fixture(), periodic: true})
	assert.Contains(t, m.draw(), "live")
	assert.NotContains(t, m.draw(), "unavailable")

	empty := newModel(context.Background(), m.cfg)
	assert.Contains(t, empty.draw(), "connecting")
	assert.NotContains(t, empty.draw(), "none")
}

func TestPause(t *testing.T) {
	m := press(newTestModel(80, 24), "p")
	other := fixture()
	other.Stats.Streams = 99
	m = update(m, snapshotMsg{data: other, periodic: true})
	assert.Contains(t, m.draw(), "PAUSED")
	assert.Contains(t, m.draw(), "12,345")
	m.now = func() time.Time { return noon.Add(time.Hour) }
	assert.NotContains(t, m.draw(), "STALE", "no newer data is expected")
	m = update(press(m, "p"), snapshotMsg{data: other, periodic: true})
	assert.Contains(t, m.draw(), "streams 99")
}

func TestUpdate_DropsOldPrefix(t *testing.T) {
	m := press(newTestModel(80, 24), "/ z")
	late := fixture()
	late.Stats.Streams = 99
	assert.Equal(t, 12345, update(m, snapshotMsg{data: late, prefix: ""}).data.Stats.Streams)
	assert.Equal(t, 99, update(m, snapshotMsg{data: late, prefix: "z"}).data.Stats.Streams)
}

// fakeService fails while it is down.
type fakeService struct {
	mu     sync.Mutex
	down   error
	asked  []string
	answer Snapshot
}

func (f *fakeService) Stats(context.Context) (apitype.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answer.Stats, f.down
}

func (f *fakeService) History(context.Context) (apitype.History, error) { return f.answer.History, nil }

func (f *fakeService) Concurrency(context.Context) (apitype.Concurrency, error) {
	return apitype.Concurrency{Refused: f.answer.Refused}, nil
}

func (f *fakeService) TopUsers(_ context.Context, prefix string, n int) (apitype.TopUsers, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("%s %d", prefix, n))
	return f.answer.Users, nil
}

// Each regular request is followed by one other, whether it succeeds or fails.
func TestRequests(t *testing.T) {
	f := &fakeService{answer: fixture(), down: errors.New("down")}
	m := newModel(t.Context(), Config{Source: f, Every: time.Millisecond, Explain: func(err error) string { return err.Error() }})
	cmd := m.Init()
	step := func() tea.Msg {
		msg := cmd()
		next, then := m.Update(msg)
		m, cmd = next.(model), then
		return msg
	}
	assert.ErrorContains(t, step().(snapshotMsg).err, "down")
	assert.Equal(t, tickMsg{}, step())
	f.down = nil
	require.NoError(t, step().(snapshotMsg).err)
	assert.True(t, m.loaded)
	m.paused = true
	assert.Equal(t, tickMsg{}, step())
	assert.Equal(t, tickMsg{}, step(), "paused: it waits on")
	_, once := press(m, "/").Update(key("z"))
	answer := once().(snapshotMsg)
	assert.Equal(t, "z", answer.prefix)
	_, then := m.Update(answer)
	assert.Nil(t, then, "other requests are not followed by one")
	assert.Equal(t, "z 100", f.asked[len(f.asked)-1])
}

func TestText(t *testing.T) {
	s := fixture()
	s.Stats.Nodes = nil // their ages depend on now
	got := Text(s, Config{Server: "http://127.0.0.1:3000"})
	golden(t, "once", got)
	assert.NotContains(t, got, "\x1b")
}
