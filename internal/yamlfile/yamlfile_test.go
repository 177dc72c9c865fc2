package yamlfile

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCheckOneDocument(t *testing.T) {
	assert.NoError(t, CheckOneDocument([]byte(strings.Repeat("---\n", 1<<18))), "and soon")
	for content, several := range map[string]bool{
		"a: 1\n": false, "": false, "---\na: 1\n": false, "# c\n\n---\na: 1\n": false, "a: 1\n---\n": false,
		"a: 1\n...\n# end\n": false, "%YAML 1.1\n---\na: 1\n": false, "a: |\n  ---\n  b\n": false, "a: ---\nb: 1\n": false,
		"\ufeff---\na: 1\n": false, "---\n---\na: 1\n": false, "a: ----\n----: 1\n": false,
		"a: 1\n---\nb: 1\n": true, "a: 1\n--- {b: 1}\n": true, "a: 1\n...\nb: [\n": true, "a: 1\r\n---\r\nb: 1\r\n": true,
		"--- {a: 1}\n--- {b: 1}\n": true, "---\na: 1\n---\n---\nb: 1": true,
	} {
		assert.Equal(t, several, CheckOneDocument([]byte(content)) != nil, "%q", content)
	}
}
