package top

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"streamcount/internal/display"
)

// Config is the configuration of the display.
type Config struct {
	Source Source
	Server string        // address to display
	Every  time.Duration // interval of requests
	Prefix string        // of the ids of displayed users; the user can change it
	Screen display.Screen
	// Explain returns the message for an error.
	Explain func(error) string
}

// A panel is one of the lists.
type panel int

const (
	users panel = iota
	regions
	nodes
	members
	limits
	panelCount // the number of panels
)

func (p panel) String() string { return [...]string{"users", "regions", "nodes", "etcd", "limits"}[p] }

// sortOrder is the order of the rows of a panel.
type sortOrder struct {
	column  int // index of the column
	reverse bool
}

// model is the state of the display. Only Update changes it.
type model struct {
	cfg           Config
	ctx           context.Context // of requests; ends with the program
	now           func() time.Time
	width, height int

	data       Snapshot
	loaded     bool      // data is set
	loadedAt   time.Time // when data was received
	fetchErr   error     // error of the last request
	dataPrefix string    // the prefix that data was requested with

	panel       panel
	sortOrders  [panelCount]sortOrder
	scroll      [panelCount]int
	prefix      string
	editing     bool // keys edit the prefix
	savedPrefix string
	paused      bool
	help        bool
}

func newModel(ctx context.Context, cfg Config) model {
	m := model{cfg: cfg, ctx: ctx, now: time.Now, width: 80, height: 24, prefix: cfg.Prefix}
	m.sortOrders[users].column = 1 // streams
	m.sortOrders[regions].column = 1
	m.sortOrders[limits].column = 3 // starts
	return m
}

type (
	// snapshotMsg is the result of a request.
	snapshotMsg struct {
		data     Snapshot
		prefix   string
		err      error
		periodic bool // a regular request, which schedules the next one
	}
	// tickMsg starts the next regular request.
	tickMsg struct{}
)

// Init starts the first request.
func (m model) Init() tea.Cmd { return m.fetch(true) }

// fetch requests a snapshot. periodic is set for regular requests.
func (m model) fetch(again bool) tea.Cmd {
	ctx, source, prefix := m.ctx, m.cfg.Source, m.prefix
	return func() tea.Msg {
		data, err := Fetch(ctx, source, prefix)
		return snapshotMsg{data, prefix, err, again}
	}
}

// wait returns a tickMsg after the interval.
func (m model) wait() tea.Cmd {
	ctx, every := m.ctx, m.cfg.Every
	return func() tea.Msg {
		t := time.NewTimer(every)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return tickMsg{}
	}
}

// Update handles an event.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m.handleKey(msg)
	case tea.PasteMsg:
		if m.editing {
			return m.appendToPrefix(msg.Content)
		}
	case tickMsg:
		if m.paused {
			return m, m.wait()
		}
		return m, m.fetch(true)
	case snapshotMsg:
		return m.applySnapshot(msg)
	}
	return m, nil
}

func (m model) applySnapshot(msg snapshotMsg) (tea.Model, tea.Cmd) {
	var next tea.Cmd
	if msg.periodic {
		next = m.wait()
	}
	if m.paused && msg.periodic {
		return m, next // the request was sent before the display was paused
	}
	if msg.prefix != m.prefix {
		return m, next // the prefix was changed after the request
	}
	m.fetchErr = msg.err
	if msg.err == nil {
		m.data, m.loaded, m.loadedAt, m.dataPrefix = msg.data, true, m.now(), msg.prefix
	}
	return m, next
}

// stale returns the age of the data, and whether newer data is overdue.
func (m model) stale() (time.Duration, bool) {
	age := m.now().Sub(m.loadedAt)
	return age, m.loaded && !m.paused && (m.fetchErr != nil || age > max(3*m.cfg.Every, 3*time.Second))
}

// View returns the content of the screen.
func (m model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	v.WindowTitle = "streamcount top"
	return v
}
