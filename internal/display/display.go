// Package display formats output for terminals: tables that fit the width, aligned numbers,
// and rounded times. It escapes characters that a terminal would interpret.
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

// A Screen describes the terminal that text is written to. The zero value is no terminal: a
// file or a pipe.
type Screen struct {
	Terminal bool
	Colour   bool
	Width    int // columns; 0 if lines may have any length
}

// ScreenOf returns the screen of w. environ may disable colours with NO_COLOR or TERM=dumb.
func ScreenOf(w io.Writer, environ []string) Screen {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Screen{}
	}
	s := Screen{Terminal: true, Colour: coloursAllowed(environ)}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		s.Width = width
	}
	return s
}

func coloursAllowed(environ []string) bool {
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb" {
			return false
		}
	}
	return true
}

// A Tone is the style of a text on a screen with colours.
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

// Paint returns text in a tone, if s has colours.
func (s Screen) Paint(t Tone, text string) string {
	if !s.Colour || t == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// Printable returns s on one line, with all characters that are not printable replaced by
// escapes. Device names and titles come from clients.
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

// PrintableJSON is like Printable for JSON. encoding/json escapes only some control
// characters. The others occur only in strings, where an escape has the same meaning.
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
