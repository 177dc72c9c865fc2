package display

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"Living room TV":     "Living room TV",
		"Küche 📺 客厅":         "Küche 📺 客厅",
		"\x1b[31mred":        `\x1b[31mred`,
		"a\nfake log line":   `a\x0afake log line`,
		"\u009b31m":          `\u009b31m`,
		"\u202egpj.exe":      `\u202egpj.exe`,
		"zero\u200bwidth":    `zero\u200bwidth`,
		"\xff\x7f":           `\xff\x7f`,
		"tab\there\rand\x00": `tab\x09here\x0dand\x00`,
	} {
		assert.Equal(t, want, Printable(in))
	}
}

func TestPrintableJSON_MeansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.String().Draw(t, "text")
		doc, err := json.MarshalIndent(map[string]string{"k": in}, "", "  ")
		require.NoError(t, err)
		text := PrintableJSON(doc)
		for _, r := range text {
			assert.True(t, r == '\n' || unicode.IsPrint(r), "%U", r)
		}
		var out map[string]string
		require.NoError(t, json.Unmarshal([]byte(text), &out))
		assert.Equal(t, strings.ToValidUTF8(in, "\ufffd"), out["k"])
	})
}
