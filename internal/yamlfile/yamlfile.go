// Package yamlfile decodes YAML files strictly.
package yamlfile

import (
	"errors"
	"regexp"
	"strings"
)

var (
	documentMarker = regexp.MustCompile(`(?m)^(---|\.\.\.)([ \t\r]|$)`)
	contentLine    = regexp.MustCompile(`(?m)^[ \t]*[^# \t\r\n%]`) // not a comment or a directive
)

// CheckOneDocument returns an error if content has several YAML documents. The YAML package
// reads only the first one and ignores the others.
func CheckOneDocument(content []byte) error {
	documents := 0
	for _, part := range documentMarker.Split(strings.TrimPrefix(string(content), "\ufeff"), -1) {
		if contentLine.MatchString(part) {
			documents++
		}
	}
	if documents > 1 {
		return errors.New("several YAML documents: only the first would be used; remove the --- separators")
	}
	return nil
}
