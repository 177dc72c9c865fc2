// Package streamcount_test holds the whole tree to its own rules: who may import
// whom, one package comment a package, and how long a file or function may grow.
package streamcount_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	module      = "streamcount"
	maxFile     = 400 // lines
	maxFunction = 80  // lines, signature to brace
)

// file is one parsed Go file of the tree.
type file struct {
	path string
	dir  string // its package's folder, slash-separated
	test bool
	ast  *ast.File
	fset *token.FileSet
}

func tree(t *testing.T) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file{
			path: filepath.ToSlash(path),
			dir:  filepath.ToSlash(filepath.Dir(path)),
			test: strings.HasSuffix(path, "_test.go"),
			ast:  parsed,
			fset: fset,
		})
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, len(files), 50, "the walk found the tree")
	return files
}

// Data flows one way, from cmd through api to lease to etcd. Each row says
// which of our packages a package may import, and why no more.
func TestImports(t *testing.T) {
	allowed := map[string]struct {
		imports []string
		why     string
	}{
		"lease":       {nil, "the product can be embedded: it knows etcd, not HTTP, and no sibling"},
		"cluster":     {nil, "it knows etcd; if it needed lease, the asker would declare an interface and cmd join them"},
		"metrics":     {[]string{"lease"}, "it shows what limiters and routes have counted"},
		"api":         {[]string{"access", "lease", "metrics", "api/apitype"}, "HTTP in: it knows the limiter, not where etcd comes from"},
		"access":      {[]string{"internal/follow"}, "who calls and what he may do, whatever the calls are"},
		"api/apitype": {nil, "the wire, for servers and clients alike"},
		"client":      {[]string{"api/apitype"}, "its users must not pull in etcd"},
		"cmd/streamcount": {[]string{
			"access", "api", "api/apitype", "client", "cluster", "lease", "internal/bench", "internal/bench/peer",
			"internal/display", "internal/follow", "internal/top", "shard", "web",
		}, "wiring"},
		"shard":                {[]string{"lease"}, "a limiter made of limiters: how they are reached is cmd's business"},
		"internal/follow":      {nil, "it reads files"},
		"internal/browser":     {[]string{"internal/bench/child"}, "it starts Chromium and the service, and looks from outside"},
		"web":                  {nil, "files, and how they are served; what they show comes from the public API"},
		"internal/containers":  {nil, "it starts what docker-compose.yml says, and looks from outside"},
		"internal/etcdsim":     {nil, "test machinery, below everything"},
		"internal/etcdtest":    {nil, "test machinery, below everything"},
		"examples/hls":         {nil, "it shows what others write, who have nothing of ours"},
		"internal/bench":       {[]string{"internal/bench/child", "internal/bench/load", "internal/bench/plot"}, "it measures from outside: HTTP and processes, nothing of the service's own code"},
		"internal/bench/child": {nil, "it runs programs"},
		"internal/bench/load":  {nil, "it makes requests, and knows nothing of streams"},
		"internal/bench/peer":  {[]string{"api", "api/apitype", "cluster", "lease", "internal/bench/child"}, "peers are served by the same API, with something else behind it"},
		"internal/bench/plot":  {nil, "it draws"},
		"internal/display":     {nil, "it writes for people, whatever it is"},
		"internal/top":         {[]string{"api/apitype", "internal/display"}, "it shows what a service says: who asks it is cmd's business"},
	}
	for _, f := range tree(t) {
		if f.test || f.dir == "." {
			continue
		}
		rule, ok := allowed[f.dir]
		if !assert.True(t, ok, "%s: package %s has no row in this test: add one with its reason", f.path, f.dir) {
			continue
		}
		for _, imp := range f.ast.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			if ours, ok := strings.CutPrefix(path, module+"/"); ok {
				assert.Contains(t, rule.imports, ours, "%s imports %s: %s", f.path, ours, rule.why)
			}
			switch {
			case strings.HasPrefix(path, "go.etcd.io/etcd/server/"):
				assert.Contains(t, []string{"cluster", "internal/etcdtest"}, f.dir, "%s runs etcd servers", f.path)
			case f.dir == "api/apitype":
				assert.NotContains(t, path, ".", "%s: the wire depends on the standard library alone", f.path)
			}
		}
	}
}

// The image is built from what .dockerignore lets in: every package of the tree.
func TestDockerignore(t *testing.T) {
	content, err := os.ReadFile(".dockerignore")
	require.NoError(t, err)
	let := strings.Split(string(content), "\n")
	for _, f := range tree(t) {
		if top, _, _ := strings.Cut(f.dir, "/"); top != "." {
			assert.Contains(t, let, "!"+top, "%s is left out of the image: add !%s to .dockerignore", f.path, top)
		}
	}
}

func TestPackageComments(t *testing.T) {
	comments := map[string]int{}
	for _, f := range tree(t) {
		if _, seen := comments[f.dir]; !seen {
			comments[f.dir] = 0
		}
		if f.ast.Doc != nil {
			comments[f.dir]++
		}
	}
	for dir, n := range comments {
		assert.Equal(t, 1, n, "package comments in %s", dir)
	}
}

func TestSizes(t *testing.T) {
	for _, f := range tree(t) {
		lines := f.fset.File(f.ast.Pos()).LineCount()
		assert.LessOrEqual(t, lines, maxFile, "%s has %d lines: split it by what it is about", f.path, lines)
		if f.test {
			continue // tables may be long
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
			assert.LessOrEqual(t, n, maxFunction, "%s: %s has %d lines", f.path, fn.Name.Name, n)
		}
	}
}

func TestPackageNames(t *testing.T) {
	banned := []string{"util", "utils", "common", "helpers", "types", "misc", "base"}
	for _, f := range tree(t) {
		assert.False(t, slices.Contains(banned, f.ast.Name.Name), "%s: a package is named for what it offers", f.path)
	}
}
