package top

import (
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"
)

// maxPrefix is how long a user id may be.
const maxPrefix = 128

// helpLines say what press and edit do.
var helpLines = [][2]string{
	{"1 2 3 4", "show users, regions, nodes or etcd members"},
	{"tab, shift+tab", "show the next or the last of them"},
	{"s, r", "sort by the next column; turn the order round"},
	{"/", "show only users whose ids begin with what you type"},
	{"esc", "show all users again"},
	{"up, down, k, j", "scroll; also pgup, pgdown, home, end"},
	{"p, space", "pause, and go on"},
	{"?, h", "this help"},
	{"q, ctrl+c", "quit"},
}

// press does what a key asks for.
func (m model) press(key tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	if key.String() == "ctrl+c" {
		return m, tea.Quit
	}
	if m.typing {
		return m.edit(key)
	}
	switch name := key.String(); name {
	case "q":
		return m, tea.Quit
	case "ctrl+z":
		return m, tea.Suspend
	case "?", "h":
		m.help = !m.help
	case "p", "space":
		m.paused = !m.paused
	case "1", "2", "3", "4":
		m.show(panel(name[0] - '1'))
	case "tab", "right":
		m.show((m.panel + 1) % panels)
	case "shift+tab", "left":
		m.show((m.panel + panels - 1) % panels)
	case "s":
		m.orders[m.panel] = order{column: (m.orders[m.panel].column + 1) % len(heads[m.panel])}
	case "r":
		m.orders[m.panel].reverse = !m.orders[m.panel].reverse
	case "/":
		m.show(users)
		m.typing, m.before = true, m.prefix
	case "esc":
		if m.help {
			m.help = false
			return m, nil
		}
		return m.ask("")
	default:
		m.move(name)
	}
	return m, nil
}

func (m *model) show(p panel) { m.panel, m.help = p, false }

// move scrolls.
func (m *model) move(key string) {
	page := max(m.rows()-1, 1)
	by := map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -page, "pgdown": page,
		"home": -1 << 20, "g": -1 << 20, "end": 1 << 20, "G": 1 << 20}[key]
	last := max(len(m.list(m.panel))-m.rows(), 0)
	m.scroll[m.panel] = min(max(min(m.scroll[m.panel], last)+by, 0), last)
}

// edit changes the prefix. Users are asked for with every letter.
func (m model) edit(key tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	switch key.String() {
	case "enter":
		m.typing = false
		return m, nil
	case "esc":
		m.typing = false
		return m.ask(m.before)
	case "backspace":
		if r := []rune(m.prefix); len(r) > 0 {
			return m.ask(string(r[:len(r)-1]))
		}
		return m, nil
	case "ctrl+u":
		return m.ask("")
	}
	return m.typed(key.Text)
}

// typed adds text to the prefix.
func (m model) typed(text string) (tea.Model, tea.Cmd) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != ' ' && r != '/' { // as in no user id
			return r
		}
		return -1
	}, text)
	if text == "" || len(m.prefix)+len(text) > maxPrefix {
		return m, nil
	}
	return m.ask(m.prefix + text)
}

// ask asks for the users with another prefix.
func (m model) ask(prefix string) (tea.Model, tea.Cmd) {
	if prefix == m.prefix {
		return m, nil
	}
	m.prefix, m.scroll[users] = prefix, 0
	return m, m.look(false)
}
