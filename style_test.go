// Package streamcount_test checks the rules of the repository: the imports of each package, one
// comment per package, and the sizes of files, functions and packages.
package streamcount_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
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
	maxFunction = 80  // lines, from the signature to the closing brace
)

// file is a parsed Go file of the repository.
type file struct {
	path string
	dir  string // of its package, slash-separated
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
	require.Greater(t, len(files), 50, "Go files were found")
	return files
}

// TestImports checks imports against a table. Each row has the packages of this module that a
// package may import, and the reason for the restriction. Imports point down: from cmd to
// internal/node, then to api, shard and events, then to lease and its internal packages.
func TestImports(t *testing.T) {
	allowed := map[string]struct {
		imports []string
		why     string
	}{
		"lease/internal/breaker":     {[]string{"internal/retry", "lease/internal/monotonic"}, "it probes etcd by a function"},
		"lease/internal/monotonic":   {nil, "it computes with times"},
		"lease/internal/replica":     {[]string{"lease/internal/bars", "internal/retry", "lease/internal/etcdop", "lease/internal/monotonic", "lease/internal/schema", "lease/internal/ttlmap", "lease/policy", "lease/streamid"}, "it caches the keys in etcd, and does not write streams"},
		"lease/internal/cachedcount": {nil, "it caches a number"},
		"lease/internal/distinct":    {nil, "it compares values"},
		"lease/internal/ttlmap":      {nil, "it stores values"},
		"lease":                      {[]string{"lease/bulkend", "lease/userid", "lease/internal/bars", "lease/internal/breaker", "lease/internal/cachedcount", "lease/internal/distinct", "lease/internal/leasestatus", "lease/internal/provisional", "lease/internal/monotonic", "lease/internal/replica", "lease/internal/ttlmap", "lease/internal/commit", "lease/internal/leasepool", "lease/internal/userlock", "lease/internal/keepalive", "internal/retry", "lease/internal/etcdop", "lease/internal/schema", "lease/migration", "lease/policy", "lease/rules", "lease/stats", "lease/streamid", "lease/userdata"}, "other programs can embed it: it uses etcd, and not HTTP"},
		"events":                     {[]string{"lease", "lease/policy"}, "it observes limiters and publishes what they report; lease does not import it"},
		"lease/streamid":             {nil, "it signs and verifies text"},
		"lease/userid":               {nil, "it checks text; clients use it too"},
		"lease/rules":                {[]string{"lease/userid", "internal/retry", "lease/internal/etcdop", "lease/internal/leasepool", "lease/internal/replica", "lease/internal/schema", "lease/policy"}, "it reads and writes the keys of rules"},
		"lease/migration":            {[]string{"lease/userid", "internal/retry", "lease/internal/etcdop", "lease/internal/keepalive", "lease/internal/leasepool", "lease/internal/replica", "lease/internal/schema", "lease/rules", "lease/streamid"}, "it moves the keys of users between etcd clusters"},
		"lease/internal/bars":        {[]string{"lease/internal/schema", "lease/internal/ttlmap", "lease/policy", "lease/streamid"}, "it keeps sessions in memory; it does not use etcd"},
		"lease/userdata":             {[]string{"lease/userid", "internal/retry", "lease/internal/commit", "lease/internal/etcdop", "lease/internal/leasepool", "lease/internal/leasestatus", "lease/internal/replica", "lease/internal/schema", "lease/policy", "lease/streamid"}, "it reads and deletes the keys of a user"},
		"lease/bulkend":              {[]string{"internal/retry", "lease/internal/etcdop", "lease/internal/replica", "lease/internal/schema", "lease/policy", "lease/streamid"}, "it finds streams, and ends them by functions"},
		"lease/internal/leasestatus": {[]string{"lease/internal/etcdop", "lease/internal/schema", "lease/internal/ttlmap"}, "it reads the status of leases"},
		"lease/internal/provisional": {[]string{"lease/internal/schema", "lease/streamid"}, "it stores streams; the limiter writes them"},
		"lease/stats":                {[]string{"lease/internal/commit", "lease/internal/etcdop", "lease/internal/keepalive"}, "it counts, and wraps the clients of etcd"},
		"lease/policy":               {nil, "it computes the admission decision from values"},
		"lease/internal/schema":      {[]string{"lease/userid", "lease/policy", "lease/streamid"}, "it encodes and decodes keys and values in etcd"},
		"lease/internal/etcdop":      {[]string{"internal/retry"}, "it makes etcd requests and reads etcd errors"},
		"lease/internal/keepalive":   {[]string{"internal/retry", "lease/internal/etcdop"}, "it renews leases"},
		"lease/internal/userlock":    {[]string{"lease/internal/etcdop"}, "it locks"},
		"lease/internal/leasepool":   {[]string{"internal/retry", "lease/internal/etcdop", "lease/internal/keepalive"}, "it grants, keeps and revokes leases"},
		"lease/internal/commit":      {[]string{"lease/internal/etcdop", "lease/internal/leasepool", "lease/internal/schema"}, "it batches transactions"},
		"cluster/internal/datadir":   {nil, "it reads and locks files"},
		"cluster/internal/etcdlog":   {nil, "it filters log entries"},
		"internal/retry":             {nil, "it computes and waits for retry delays; clients use it too"},
		"cluster":                    {[]string{"cluster/internal/etcdlog", "cluster/internal/datadir", "internal/retry"}, "it connects to etcd, and does not depend on lease"},
		"metrics":                    {[]string{"lease/policy", "lease/stats"}, "it exports the counters of limiters and routes"},
		"api": {[]string{"lease/bulkend",
			"access",
			"api/apitype",
			"api/internal/attributes",
			"api/internal/convert",
			"api/internal/denials",
			"api/internal/docspage",
			"api/internal/eventstream",
			"api/internal/ingress",
			"api/internal/latency",
			"api/internal/openapi",
			"api/internal/overload",
			"api/internal/plainjson",
			"api/internal/playback",
			"api/internal/problem",
			"api/internal/readiness",
			"api/internal/router",
			"api/internal/strictjson",
			"api/internal/topusers",
			"api/preview",
			"events",
			"lease",
			"lease/policy",
			"lease/rules",
			"lease/stats",
			"lease/streamid",
			"lease/userdata",
			"lease/userid",
			"metrics",
			"token",
		}, "it serves HTTP with a limiter, and does not connect to etcd"},
		"api/edge/profile": {[]string{"access", "internal/yamlfile", "lease", "lease/policy", "lease/userid"}, "it computes from values; the edge calls the limiter"},
		"api/edge": {[]string{"access", "api/apitype", "api/edge/profile", "api/internal/convert", "api/internal/ingress", "api/internal/overload", "api/internal/problem", "internal/filewatch", "internal/retry", "lease", "lease/policy", "metrics"},
			"it answers proxies with a limiter; the server of the API does not import it"},
		"token":                    {nil, "it signs playback tokens, and has no streams"},
		"token/formats":            {[]string{"internal/yamlfile"}, "it signs playback tokens of other formats, and has no streams"},
		"api/internal/attributes":  {[]string{"access", "api/apitype", "api/internal/convert", "api/internal/problem", "lease"}, "it decides what callers may state in a start; the server makes the start"},
		"api/internal/denials":     {[]string{"access", "api/internal/ingress", "api/internal/overload"}, "it counts rejected calls"},
		"api/internal/eventstream": {[]string{"events", "internal/retry"}, "it sends the events of a feed; the server checks what a caller may read"},
		"api/preview":              {[]string{"api/apitype", "api/internal/convert", "lease/policy", "lease/rules"}, "it computes from values, so that commands can use it without a server"},
		"api/internal/convert":     {[]string{"lease/bulkend", "api/apitype", "api/internal/problem", "events", "lease", "lease/policy", "lease/rules", "lease/streamid", "lease/userdata", "lease/userid"}, "it converts bodies and errors; it calls nothing"},
		"api/internal/playback":    {[]string{"api/apitype", "api/internal/problem", "token", "token/formats"}, "it makes tokens; the server decides who gets them"},
		"token/keystore":           {[]string{"internal/retry", "token"}, "it stores keys in etcd, which the node connects"},
		"api/internal/topusers":    {[]string{"lease"}, "it caches the results of queries"},
		"api/internal/latency":     {[]string{"api/apitype"}, "it counts durations"},
		"api/internal/openapi": {[]string{
			"access", "api/apitype", "api/internal/ingress", "api/internal/latency", "api/internal/overload", "api/internal/problem",
			"lease", "lease/policy",
		}, "it describes the calls; it does not answer them"},
		"api/internal/problem":    {[]string{"api/apitype"}, "it has the error answers of all handlers"},
		"api/internal/plainjson":  {[]string{"api/apitype"}, "it reads and writes the bodies of calls; the server decides what they mean"},
		"api/internal/docspage":   {nil, "it renders a page; the server serves it"},
		"api/internal/readiness":  {[]string{"lease/rules"}, "it checks and describes a node; the server decides who may read what"},
		"api/internal/router":     {nil, "it matches paths of all calls"},
		"api/internal/strictjson": {nil, "it validates JSON documents of all calls against schemas"},
		"access":                  {[]string{"lease/policy", "lease/userid", "internal/filewatch", "internal/yamlfile"}, "it identifies the callers of all calls and their rights"},
		"api/apitype":             {nil, "it has the wire types, which servers and clients share"},
		"client":                  {[]string{"lease/userid", "api/apitype", "internal/retry"}, "programs that import it must not depend on etcd"},
		"cmd/streamcount": {[]string{
			"access", "api/apitype", "api/preview", "client", "cluster", "internal/config", "internal/display", "internal/filewatch",
			"internal/manpage", "internal/node", "internal/top", "internal/yamlfile", "lease/streamid", "shard",
		}, "its commands parse arguments, call packages and print results"},
		"internal/node": {[]string{
			"internal/retry",
			"access", "api", "api/apitype", "api/edge", "cluster", "events", "internal/config", "internal/demo", "internal/display",
			"internal/filewatch", "internal/retry", "internal/stalecache", "lease", "lease/policy", "lease/rules", "lease/streamid",
			"metrics", "shard", "token", "token/formats", "token/keystore", "web",
		}, "it connects the parts of a node, and does not import commands"},
		"internal/demo":               {[]string{"api/apitype", "client", "internal/retry"}, "it uses the public API, like any client"},
		"internal/config":             {[]string{"access", "api", "internal/yamlfile", "lease", "lease/policy", "shard", "token"}, "it validates the configuration of a node, and does not start the node"},
		"shard":                       {[]string{"lease/bulkend", "lease/userid", "internal/retry", "lease", "lease/migration", "lease/policy", "lease/rules", "lease/stats", "lease/streamid", "lease/userdata"}, "it combines limiters into one; internal/node connects them to etcd"},
		"internal/stalecache":         {nil, "it caches values"},
		"internal/filewatch":          {nil, "it reads files"},
		"internal/manpage":            {nil, "it writes the manual pages of any command line"},
		"internal/yamlfile":           {nil, "it decodes YAML text"},
		"internal/testing/browser":    {[]string{"internal/bench/child", "internal/testing/longtest", "internal/testing/testlog"}, "it starts Chromium and the service as processes"},
		"web":                         {nil, "it serves static files, which use the public API"},
		"internal/testing/containers": {nil, "it starts the containers of docker-compose.yml"},
		"internal/testing/containers/entrypoint": {
			nil, "it runs in a container",
		},
		"internal/testing/etcdsim":    {[]string{"internal/retry"}, "it simulates etcd for tests of all packages"},
		"internal/testing/etcdtest":   {[]string{"internal/testing/freeport"}, "it runs etcd for tests of all packages"},
		"internal/testing/freeport":   {nil, "it finds ports"},
		"internal/testing/limitcheck": {nil, "it shares no code with the service that it checks"},
		"internal/testing/longtest":   {nil, "it skips long tests of all packages"},
		"internal/testing/proxies":    {[]string{"internal/bench/child", "internal/testing/freeport", "internal/testing/longtest", "internal/testing/testlog"}, "it starts proxies as processes"},
		"internal/testing/testlog":    {nil, "it buffers output for tests of all packages"},
		"examples/hls":                {[]string{"lease/userid"}, "it is an example of a program of a user, with the public API"},
		"internal/bench":              {[]string{"internal/bench/launch", "internal/bench/load", "internal/bench/plot", "internal/retry"}, "it runs a node as a process and measures it over HTTP"},
		"cmd/streamcount-bench": {[]string{
			"cluster", "internal/bench", "internal/bench/attack", "internal/bench/edge", "internal/bench/launch", "internal/bench/peer",
			"internal/display", "internal/manpage",
		}, "its commands run the load generator, and delete the keys that its targets wrote to an external etcd"},
		"internal/bench/attack": {[]string{"internal/retry"}, "it sends TCP traffic to a node in another process"},
		"internal/bench/child":  {nil, "it runs programs"},
		"internal/bench/edge":   {[]string{"internal/bench/launch", "internal/bench/load", "internal/testing/freeport"}, "it runs a node and a proxy as processes and measures them over HTTP"},
		"internal/bench/launch": {[]string{"internal/bench/child", "internal/retry"}, "it runs the targets of benchmarks, and sends no load"},
		"internal/bench/load":   {nil, "it sends HTTP requests"},
		"api/internal/overload": {nil, "it limits concurrency and rates"},
		"api/internal/ingress":  {[]string{"api/internal/overload", "internal/retry"}, "it accepts connections and requests of all calls"},
		"internal/bench/peer":   {[]string{"api", "api/apitype", "cluster", "lease", "lease/policy", "lease/streamid", "internal/bench/child"}, "its peers serve the API with other limiters"},
		"internal/bench/plot":   {nil, "it draws charts"},
		"internal/display":      {nil, "it formats text for terminals"},
		"internal/top":          {[]string{"api/apitype", "internal/display"}, "it displays values; the command supplies the client"},
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
				assert.Contains(t, []string{"cluster", "cluster/internal/datadir", "internal/testing/etcdtest"}, f.dir, "%s runs etcd servers", f.path)
			case f.dir == "api/apitype":
				assert.NotContains(t, path, ".", "%s: wire types use the standard library only", f.path)
			}
		}
	}
}

// TestDockerignore checks that .dockerignore includes every package.
func TestDockerignore(t *testing.T) {
	content, err := os.ReadFile(".dockerignore")
	require.NoError(t, err)
	lines := strings.Split(string(content), "\n")
	for _, f := range tree(t) {
		if top, _, _ := strings.Cut(f.dir, "/"); top != "." {
			assert.Contains(t, lines, "!"+top, "%s is not in the image's build context: add !%s to .dockerignore", f.path, top)
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
		assert.LessOrEqual(t, lines, maxFile, "%s has %d lines: split it by topic", f.path, lines)
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

// TestPackageSizes limits packages to a size that can be read as a whole. Commands and tests may
// be larger.
func TestPackageSizes(t *testing.T) {
	const maxFiles, maxLines = 20, 3500
	files, lines := map[string]int{}, map[string]int{}
	for _, f := range tree(t) {
		if !f.test && !strings.HasPrefix(f.dir, "cmd/") {
			files[f.dir]++
			lines[f.dir] += f.fset.File(f.ast.Pos()).LineCount()
		}
	}
	for dir, n := range files {
		assert.LessOrEqual(t, n, maxFiles, "files of package %s", dir)
		assert.LessOrEqual(t, lines[dir], maxLines, "lines of package %s", dir)
	}
}

func TestPackageNames(t *testing.T) {
	banned := []string{"util", "utils", "common", "helpers", "types", "misc", "base"}
	for _, f := range tree(t) {
		assert.False(t, slices.Contains(banned, f.ast.Name.Name), "%s: name the package after what it provides", f.path)
	}
}

// TestDependencies checks that the binary of the service does not link packages of benchmarks
// and tests.
func TestDependencies(t *testing.T) {
	forbidden := []struct{ prefix, why string }{
		{"github.com/redis/", "only a peer of benchmarks uses Redis"},
		{"github.com/HdrHistogram/", "only the load generator records latencies in it"},
		{module + "/internal/bench", "the load generator and its peers, which contain other limiters, are streamcount-bench"},
		{module + "/internal/testing", "packages for tests must not be in the service"},
		{"github.com/stretchr/testify", "packages for tests must not be in the service"},
		{"testing", "packages for tests must not be in the service"},
	}
	out, err := exec.Command("go", "list", "-deps", "./cmd/streamcount").Output()
	require.NoError(t, err)
	for dep := range strings.FieldsSeq(string(out)) {
		for _, f := range forbidden {
			assert.False(t, strings.HasPrefix(dep, f.prefix), "cmd/streamcount imports %s: %s", dep, f.why)
		}
	}
}
