package top

import (
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"
)

// maxPrefixLength is the maximum length of a user id.
const maxPrefixLength = 128

// helpLines describe the keys that handleKey and editPrefix handle.
var helpLines = [][2]string{
	{"1 2 3 4 5", "show users, regions, nodes, etcd members or refusals by limit"},
	{"tab, shift+tab", "show the next or previous of these"},
	{"s, r", "sort by the next column; reverse the order"},
	{"/", "show only users whose ids begin with the text you type"},
	{"esc", "show all users again"},
	{"up, down, k, j", "scroll; also pgup, pgdown, home, end"},
	{"p, space", "pause and resume"},
	{"?, h", "show this help"},
	{"q, ctrl+c", "quit"},
}

// handleKey handles a key.
func (m model) handleKey(key tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	if key.String() == "ctrl+c" {
		return m, tea.Quit
	}
	if m.editing {
		return m.editPrefix(key)
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
	case "1", "2", "3", "4", "5":
		m.selectPanel(panel(name[0] - '1'))
	case "tab", "right":
		m.selectPanel((m.panel + 1) % panelCount)
	case "shift+tab", "left":
		m.selectPanel((m.panel + panelCount - 1) % panelCount)
	case "s":
		m.sortOrders[m.panel] = sortOrder{column: (m.sortOrders[m.panel].column + 1) % len(headings[m.panel])}
	case "r":
		m.sortOrders[m.panel].reverse = !m.sortOrders[m.panel].reverse
	case "/":
		m.selectPanel(users)
		m.editing, m.savedPrefix = true, m.prefix
	case "esc":
		if m.help {
			m.help = false
			return m, nil
		}
		return m.setPrefix("")
	default:
		m.scrollBy(name)
	}
	return m, nil
}

func (m *model) selectPanel(p panel) { m.panel, m.help = p, false }

// scrollBy handles a key that scrolls.
func (m *model) scrollBy(key string) {
	page := max(m.visibleRows()-1, 1)
	by := map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -page, "pgdown": page,
		"home": -1 << 20, "g": -1 << 20, "end": 1 << 20, "G": 1 << 20}[key]
	last := max(len(m.sortedRows(m.panel))-m.visibleRows(), 0)
	m.scroll[m.panel] = min(max(min(m.scroll[m.panel], last)+by, 0), last)
}

// editPrefix handles a key while the prefix is edited. Each change requests users.
func (m model) editPrefix(key tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	switch key.String() {
	case "enter":
		m.editing = false
		return m, nil
	case "esc":
		m.editing = false
		return m.setPrefix(m.savedPrefix)
	case "backspace":
		if r := []rune(m.prefix); len(r) > 0 {
			return m.setPrefix(string(r[:len(r)-1]))
		}
		return m, nil
	case "ctrl+u":
		return m.setPrefix("")
	}
	return m.appendToPrefix(key.Text)
}

// appendToPrefix appends text to the prefix.
func (m model) appendToPrefix(text string) (tea.Model, tea.Cmd) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != ' ' && r != '/' { // user ids contain neither
			return r
		}
		return -1
	}, text)
	if text == "" || len(m.prefix)+len(text) > maxPrefixLength {
		return m, nil
	}
	return m.setPrefix(m.prefix + text)
}

// setPrefix changes the prefix and requests the users.
func (m model) setPrefix(prefix string) (tea.Model, tea.Cmd) {
	if prefix == m.prefix {
		return m, nil
	}
	m.prefix, m.scroll[users] = prefix, 0
	return m, m.fetch(false)
}
