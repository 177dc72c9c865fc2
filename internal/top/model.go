package top

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"streamcount/internal/display"
)

// Config is what a view is made of.
type Config struct {
	Source Source
	Server string        // its address, to be shown
	Every  time.Duration // between two looks
	Prefix string        // of the users that are shown; the keys change it
	Screen display.Screen
	// Explain words an error for people.
	Explain func(error) string
}

// A panel is one of the lists.
type panel int

const (
	users panel = iota
	regions
	nodes
	members
	panels // how many there are
)

func (p panel) String() string { return [...]string{"users", "regions", "nodes", "etcd"}[p] }

// order is how a panel is sorted.
type order struct {
	column  int // one of its columns
	reverse bool
}

// model is what the view shows, and how. Update changes it, and nothing else does.
type model struct {
	cfg           Config
	ctx           context.Context // ends with the program, and with it what is being asked
	now           func() time.Time
	width, height int

	data  Snapshot
	known bool      // there is data
	at    time.Time // when it came
	lost  error     // why there is nothing newer
	asked string    // the prefix that the users of data begin with

	panel  panel
	orders [panels]order
	scroll [panels]int
	prefix string
	typing bool // keys go into prefix
	before string
	paused bool
	help   bool
}

func newModel(ctx context.Context, cfg Config) model {
	m := model{cfg: cfg, ctx: ctx, now: time.Now, width: 80, height: 24, prefix: cfg.Prefix}
	m.orders[users].column = 1 // streams
	m.orders[regions].column = 1
	return m
}

type (
	// seen is the answer to a look.
	seen struct {
		data   Snapshot
		prefix string
		err    error
		again  bool // this was one of the regular looks: there is to be another
	}
	// due tells that it is time for the next look.
	due struct{}
)

// Init begins with a look.
func (m model) Init() tea.Cmd { return m.look(true) }

// look asks the service. again makes it one of the regular looks.
func (m model) look(again bool) tea.Cmd {
	ctx, source, prefix := m.ctx, m.cfg.Source, m.prefix
	return func() tea.Msg {
		data, err := Look(ctx, source, prefix)
		return seen{data, prefix, err, again}
	}
}

// wait is for the time between two looks.
func (m model) wait() tea.Cmd {
	ctx, every := m.ctx, m.cfg.Every
	return func() tea.Msg {
		t := time.NewTimer(every)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return due{}
	}
}

// Update is told what happened, and says what to do next.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m.press(msg)
	case tea.PasteMsg:
		if m.typing {
			return m.typed(msg.Content)
		}
	case due:
		if m.paused {
			return m, m.wait()
		}
		return m, m.look(true)
	case seen:
		return m.see(msg)
	}
	return m, nil
}

func (m model) see(msg seen) (tea.Model, tea.Cmd) {
	var next tea.Cmd
	if msg.again {
		next = m.wait()
	}
	if m.paused && msg.again {
		return m, next // it was on its way when the key was pressed
	}
	if msg.prefix != m.prefix {
		return m, next // of users that are no longer asked for
	}
	m.lost = msg.err
	if msg.err == nil {
		m.data, m.known, m.at, m.asked = msg.data, true, m.now(), msg.prefix
	}
	return m, next
}

// stale is how long ago the data was true, if there should be newer data.
func (m model) stale() (time.Duration, bool) {
	age := m.now().Sub(m.at)
	return age, m.known && !m.paused && (m.lost != nil || age > max(3*m.cfg.Every, 3*time.Second))
}

// View is the screen.
func (m model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	v.WindowTitle = "streamcount top"
	return v
}
