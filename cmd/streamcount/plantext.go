package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"streamcount/api/apitype"
)

// printPlan prints a plan with one line for each limit.
func (a *app) printPlan(p apitype.Plan) error {
	if len(p.Limits)+len(p.Require) == 0 {
		return a.printf("plan %s: %s\n", printable(p.Name), planText(p.PlanRule))
	}
	lines := []string{fmt.Sprintf("plan %s: %s", printable(p.Name), totalText(p.PlanRule))}
	for _, l := range p.Limits {
		lines = append(lines, "  limit "+furtherLimitText(l))
	}
	if len(p.Require) > 0 {
		lines = append(lines, "  starts must state "+printable(strings.Join(p.Require, ", ")))
	}
	if len(p.Attributes) > 0 {
		lines = append(lines, "  depends on "+printable(strings.Join(p.Attributes, ", ")))
	}
	for _, w := range p.Warnings {
		lines = append(lines, "  warning: "+printable(w))
	}
	return a.printf("%s\n", strings.Join(lines, "\n"))
}

// furtherLimitText returns one limit of a plan, as "tv: 1 stream where device.type is tv or missing".
func furtherLimitText(l apitype.Limit) string {
	unit := l.Count
	switch {
	case unit == "" || unit == "streams":
		unit = plural(l.Limit, "stream")
	case unit != "content" && l.Limit == 1:
		unit = strings.TrimSuffix(unit, "s")
	}
	text := fmt.Sprintf("%s: %d %s", l.Name, l.Limit, unit)
	if l.Per != "" {
		text += " for each " + l.Per
	}
	for i, attribute := range slices.Sorted(maps.Keys(l.Where)) {
		text += []string{" where ", " and "}[min(i, 1)] + conditionText(attribute, l.Where[attribute])
	}
	if l.OnLimit != "" && l.OnLimit != "deny" {
		text += ", starts may request " + l.OnLimit
	}
	if l.Observe {
		text += ", only observed"
	}
	if l.Message != "" {
		text += fmt.Sprintf("; message %q", l.Message)
	}
	return printable(text)
}

func conditionText(attribute string, v apitype.Values) string {
	verb, values := "is", v.In
	if len(v.Not) > 0 {
		verb, values = "is not", v.Not
	}
	words := make([]string, len(values))
	for i, value := range values {
		words[i] = value
		if value == "" {
			words[i] = "missing"
		}
	}
	list := strings.Join(words, ", ")
	if last := len(words) - 1; last > 0 {
		list = strings.Join(words[:last], ", ") + " or " + words[last]
	}
	return fmt.Sprintf("%s %s %s", attribute, verb, list)
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
