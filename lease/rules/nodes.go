package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/policy"
)

// ErrOlderNodes means that a rule needs what a registered node does not support. Nothing
// was written. The error is an [*OlderNodesError].
var ErrOlderNodes = errors.New("lease: a registered node does not support the rule")

// A Node is a registered node of the service.
type Node struct {
	ID, Region, Version string
	Supports            []string // the needs of rules that it supports; see [policy.SupportedNeeds]
}

// An OlderNodesError names the nodes that do not support what rules need. It is an
// [ErrOlderNodes].
type OlderNodesError struct {
	Needs []string // that the nodes do not all support
	Nodes []Node   // those that do not, by id
}

func (e *OlderNodesError) Error() string {
	names := make([]string, len(e.Nodes))
	for i, n := range e.Nodes {
		names[i] = n.ID
	}
	return fmt.Sprintf("%v: %s: %s", ErrOlderNodes, strings.Join(e.Needs, ", "), strings.Join(names, ", "))
}

// Unwrap makes an OlderNodesError an [ErrOlderNodes].
func (e *OlderNodesError) Unwrap() error { return ErrOlderNodes }

// Compatibility is what keeps rules in force from being applied completely: what this version
// does not support, and what other registered nodes do not support.
type Compatibility struct {
	Plans, Users []string // the plans, and the users with overrides, that this version cannot read
	Older        []Node   // nodes that do not support what rules in force need
}

// OlderNodes returns those of nodes that do not support all needs, by id, and the needs that
// at least one of them does not support.
func OlderNodes(nodes []Node, needs []string) (older []Node, missing []string) {
	for _, n := range nodes {
		if m := policy.MissingNeeds(needs, n.Supports); len(m) > 0 {
			older, missing = append(older, n), append(missing, m...)
		}
	}
	slices.SortFunc(older, func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
	return older, unique(missing)
}

// needs returns what a version must support to apply the rules that c writes.
func (c Changes) needs() []string {
	set := Set{Plans: map[string]*policy.Plan{}, Users: map[string]*policy.Override{}}
	for _, p := range c.Plans {
		set.Plans[p.Name] = p.New
	}
	for _, u := range c.Users {
		set.Users[u.User] = u.New
	}
	return set.Needs()
}

// Needs returns what a version must support to apply the rules of s.
func (s Set) Needs() []string {
	var needs []string
	for _, p := range s.Plans {
		if p != nil {
			needs = append(needs, p.Needs()...)
		}
	}
	for _, o := range s.Users {
		if o != nil {
			needs = append(needs, o.Needs()...)
		}
	}
	return unique(needs)
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// checkNodes returns an [*OlderNodesError] if a registered node does not support the rules
// that c writes, and lease.ErrUnavailable if the nodes cannot be listed. It does not
// detect a node that starts after the check.
func (s *Store) checkNodes(ctx context.Context, c Changes) error {
	needs := c.needs()
	if len(needs) == 0 || s.cfg.Nodes == nil {
		return nil
	}
	nodes, err := s.cfg.Nodes(ctx)
	if err != nil {
		return etcdop.Unavailable("list the nodes that must support a rule", err)
	}
	if older, missing := OlderNodes(nodes, needs); len(older) > 0 {
		return &OlderNodesError{Needs: missing, Nodes: older}
	}
	return nil
}
