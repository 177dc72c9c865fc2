package convert

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/events"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
	"streamcount/lease/streamid"
)

// want returns the status of each error of lease.
func want() map[string]struct {
	err    error
	status int
} {
	type w = struct {
		err    error
		status int
	}
	return map[string]w{
		"ErrLimit": {lease.ErrLimit, 403}, "ErrEnded": {lease.ErrEnded, 410},
		"ErrNoStreams": {lease.ErrNoStreams, 404},
		"ErrForeign":   {streamid.ErrForeign, 404}, "ErrMalformed": {streamid.ErrMalformed, 422}, "ErrHandle": {streamid.ErrHandle, 422}, "ErrUnknownSecret": {streamid.ErrUnknownSecret, 404},
		"ErrBadUser":       {lease.ErrBadUser, 422},
		"ErrBadCursor":     {events.ErrBadCursor, 422},
		"ErrNoPlan":        {policy.ErrNoPlan, 422},
		"ErrNoOverride":    {rules.ErrNoOverride, 404},
		"ErrBadRule":       {policy.ErrBadRule, 422},
		"ErrChanged":       {rules.ErrChanged, 409},
		"ErrOlderNodes":    {rules.ErrOlderNodes, 409},
		"ErrUnavailable":   {lease.ErrUnavailable, 503},
		"ErrUnreadable":    {policy.ErrUnreadable, 503},
		"ErrRouting":       {lease.ErrRouting, 503},
		"ErrBadAttributes": {policy.ErrBadAttributes, 422}, "ErrMissingAttributes": {policy.ErrMissingAttributes, 422},
		"ErrInUse": {lease.ErrInUse, 503},
	}
}

// Each error that lease exports has a row, and the same status when it is wrapped.
func TestErrors_EveryLeaseError(t *testing.T) {
	exported := leaseErrors(t)
	require.Contains(t, exported, "ErrLimit")
	for _, name := range exported {
		w, ok := want()[name]
		if !assert.True(t, ok, "lease.%s has no row in this table, and perhaps none in problem.go", name) {
			continue
		}
		for _, err := range []error{w.err, fmt.Errorf("some detail: %w", w.err)} {
			p := Problem(err)
			assert.Equal(t, w.status, p.Status, name)
			assert.NotContains(t, p.Detail, "some detail")
			assert.Equal(t, w.status == 403 || w.status == 503, p.GetHeaders().Get("Retry-After") != "", name)
		}
	}
	assert.Len(t, exported, len(want()))
}

// leaseErrors returns the names of the error variables that lease, its public
// packages and events export.
func leaseErrors(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, dir := range []string{"../../../lease", "../../../lease/policy", "../../../lease/rules", "../../../lease/streamid", "../../../events"} {
		found, err := filepath.Glob(dir + "/*.go")
		require.NoError(t, err)
		files = append(files, found...)
	}
	var names []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, spec := range vars.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	return names
}

func TestErrors_Unlisted(t *testing.T) {
	p := Problem(errors.New("user 7 at 10.0.0.1"))
	assert.Equal(t, 500, p.Status)
	assert.NotContains(t, p.Error(), "10.0.0.1")
}

func TestErrors_RetryAfter(t *testing.T) {
	seen := map[string]bool{}
	for range 500 {
		seen[Problem(lease.ErrUnavailable).GetHeaders().Get("Retry-After")] = true
	}
	assert.Equal(t, map[string]bool{"1": true, "2": true, "3": true, "4": true, "5": true}, seen)
}

// A refusal because of older nodes names them, but not arbitrarily many.
func TestErrors_OlderNodes(t *testing.T) {
	older := &rules.OlderNodesError{Needs: []string{"limits"}, Nodes: []rules.Node{{ID: "a", Region: "eu", Version: "0.1.0"}, {ID: "b"}}}
	p := Problem(fmt.Errorf("write: %w", older))
	assert.Equal(t, []apitype.Node{{ID: "a", Region: "eu", Version: "0.1.0"}, {ID: "b"}}, p.Nodes)
	assert.Contains(t, p.Detail, "The rules need limits, and these nodes do not support it: "+
		"a (region eu, version 0.1.0), b (region unknown, version unknown). Nothing was changed. Finish the upgrade")

	for i := range 30 {
		older.Nodes = append(older.Nodes, rules.Node{ID: strconv.Itoa(i)})
	}
	p = Problem(older)
	assert.Len(t, p.Nodes, 20)
	assert.Contains(t, p.Detail, "and 12 more. Nothing")
}
