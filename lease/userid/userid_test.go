package userid

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestFault(t *testing.T) {
	for user, fault := range map[string]string{
		"maya": "", `CORP\ann`: "", "o'brien@x.example": "", "müller": "", "ann lee": "", "tom/admin": "", " ": "", "..": "",
		"S//808E9UOiYKKAkagOBLGxvuLUbDCXlp8sZz6ilew8=": "", strings.Repeat("é", 64): "", "\ufeffa": "", "\u202e": "",
		"":                       "it is empty",
		strings.Repeat("a", 129): "it has 129 bytes, and may have 128",
		strings.Repeat("é", 65):  "it has 130 bytes, and may have 128",
		"a\xff":                  "it is not UTF-8",
		"a\xed\xa0\x80":          "it is not UTF-8",
		"a\tb":                   "it has a control character, U+0009, at byte 1",
		"\x00":                   "it has a control character, U+0000, at byte 0",
		"é\u007f":                "it has a control character, U+007F, at byte 2",
		"\u0085":                 "it has a control character, U+0085, at byte 0",
	} {
		assert.Equal(t, fault, Fault(user), "%q", user)
		assert.Equal(t, fault == "", Valid(user), "%q", user)
	}
}

// Every prefix of a valid id that ends between two characters begins a valid id.
func TestPrefixFault(t *testing.T) {
	assert.Empty(t, PrefixFault(""))
	for _, prefix := range []string{"m", "CORP\\", "mü"} {
		assert.Empty(t, PrefixFault(prefix), "%q", prefix)
	}
	assert.Equal(t, "it is not UTF-8", PrefixFault("m\xc3"))
	assert.Equal(t, "it has 129 bytes, and may have 128", PrefixFault(strings.Repeat("a", 129)))
}
