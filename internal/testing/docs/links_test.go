// Package docs tests the documentation: links, the index, and the commands of pages.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pages returns all Markdown files of the repository by their path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	root := os.DirFS("../../..")
	found := map[string]string{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case filepath.Ext(name) != ".md":
			return nil
		}
		content, err := fs.ReadFile(root, name)
		found[name] = string(content)
		return err
	})
	require.NoError(t, err)
	require.Greater(t, len(found), 10, "pages were found")
	return found
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	inCode = regexp.MustCompile("`[^`\n]*`")
	link   = regexp.MustCompile(`\]\(([^)\s]+)(?: "[^"]*")?\)|(?:src|href)="([^"]+)"`)
	head   = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *#*$`)
	bold   = regexp.MustCompile(`\*\*|__`)
	inLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	noSlug = regexp.MustCompile(`[^\p{L}\p{N}\p{M}\- _]`)
)

// TestLinks checks that each relative link leads to a file, and to a heading in it.
func TestLinks(t *testing.T) {
	all := pages(t)
	links := 0
	for name, content := range all {
		for _, target := range linksOf(content) {
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") || strings.HasPrefix(target, "data:") {
				continue // a test must not depend on other hosts
			}
			links++
			file, anchor, _ := strings.Cut(target, "#")
			to := name
			if file != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
				_, err := os.Stat(filepath.Join("../../..", to))
				if !assert.NoError(t, err, "%s links to %s", name, target) {
					continue
				}
			}
			if anchor != "" {
				assert.Contains(t, anchorsOf(all[to]), anchor, "%s links to %s, which has no such heading", name, target)
			}
		}
	}
	assert.Greater(t, links, 50, "links were found")
}

func linksOf(page string) []string {
	page = inCode.ReplaceAllString(fenced.ReplaceAllString(page, ""), "")
	var targets []string
	for _, m := range link.FindAllStringSubmatch(page, -1) {
		targets = append(targets, m[1]+m[2])
	}
	return targets
}

// anchorsOf returns the URL fragments of the headings of a page.
func anchorsOf(page string) []string {
	var anchors []string
	for _, m := range head.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		text := inLink.ReplaceAllString(bold.ReplaceAllString(m[1], ""), "$1")
		slug := strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
		anchors = append(anchors, slug)
	}
	return anchors
}

// TestIndex checks that the index lists every page.
func TestIndex(t *testing.T) {
	all := pages(t)
	listed := linksOf(all["docs/README.md"])
	for name := range all {
		if file, ok := strings.CutPrefix(name, "docs/"); ok && file != "README.md" {
			assert.Contains(t, listed, file, "docs/README.md does not list it")
		}
	}
}

// TestMachinePaths checks that no page has a path of a particular machine.
func TestMachinePaths(t *testing.T) {
	machine := regexp.MustCompile(`(?:^|[\s("'=])/(?:work|root|home|Users)/\S*`)
	for name, content := range pages(t) {
		assert.NotRegexp(t, machine, content, name)
	}
}
