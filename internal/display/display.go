// Package display writes for people at terminals: tables that fit, numbers that line
// up, times as they are felt, and nothing that somebody else's text could make the
// terminal do.
package display

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// A Screen is what a stream of text is shown on. The zero value is no terminal: a
// file, or another program.
type Screen struct {
	Terminal bool
	Colour   bool
	Width    int // columns; 0 where lines may be of any length
}

// On finds out what w is shown on. environ may forbid colours, by NO_COLOR or a
// terminal that is dumb.
func On(w io.Writer, environ []string) Screen {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Screen{}
	}
	s := Screen{Terminal: true, Colour: colours(environ)}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		s.Width = width
	}
	return s
}

func colours(environ []string) bool {
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb" {
			return false
		}
	}
	return true
}

// A Tone is how a text is drawn where there are colours.
type Tone string

// The tones.
const (
	Plain  Tone = ""
	Strong Tone = "1"
	Faint  Tone = "2"
	Good   Tone = "32"
	Warn   Tone = "33"
	Bad    Tone = "1;31"
)

// Paint draws text in a tone, if s has colours.
func (s Screen) Paint(t Tone, text string) string {
	if !s.Colour || t == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// Printable is s on one line with every character that could act on a terminal
// shown as an escape. Device names and titles come from viewers.
func Printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// PrintableJSON does the same for JSON, which escapes only what is below space.
// Such characters occur in its strings alone, where an escape means the same.
func PrintableJSON(doc []byte) string {
	var b strings.Builder
	for _, r := range string(doc) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
