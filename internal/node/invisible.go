package node

import (
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// escapeInvisible returns a log line in which invisible characters are replaced by \uXXXX:
// characters that change the direction of text or have no width, and control characters
// beyond ASCII. In JSON the escape represents the same text. The log encoders escape ASCII
// control characters.
func escapeInvisible(line []byte) []byte {
	from := 0
	for from < len(line) && line[from] < 0x7f {
		from++
	}
	if from == len(line) {
		return line
	}
	out := append(make([]byte, 0, len(line)+16), line[:from]...)
	for from < len(line) {
		r, n := utf8.DecodeRune(line[from:])
		switch {
		case r < 0x7f, unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			out = append(out, line[from:from+n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		from += n
	}
	return out
}
