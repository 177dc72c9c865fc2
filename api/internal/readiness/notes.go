package readiness

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"streamcount/lease/rules"
)

// maxNames is the maximum number of rules or nodes in a note.
const maxNames = 10

// Notes describes the rules that are not applied completely, in one line each; "" if there are
// none. The names of plans are always in it, and those of users and nodes only with private.
func Notes(c rules.Compatibility, private bool) string {
	var out strings.Builder
	if n := len(c.Plans); n > 0 {
		fmt.Fprintf(&out, "this version cannot read %s, whose users cannot start streams on this node: %s\n",
			number(n, "plan", "plans"), list(c.Plans, true))
	}
	if n := len(c.Users); n > 0 {
		fmt.Fprintf(&out, "this version cannot read the limits of %s, who cannot start streams on this node: %s\n",
			number(n, "user", "users"), list(c.Users, private))
	}
	if n := len(c.Older); n > 0 {
		names := make([]string, n)
		for i, node := range c.Older {
			names[i] = fmt.Sprintf("%s (region %s, version %s)", node.ID, cmp.Or(node.Region, "unknown"), cmp.Or(node.Version, "unknown"))
		}
		fmt.Fprintf(&out, "%s not support the rules in use and may admit too many streams: %s\n",
			number(n, "node does", "nodes do"), list(names, private))
	}
	return out.String()
}

func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// list returns at most maxNames of names. User ids may contain quotes and characters that
// are not printable, so all names are quoted.
func list(names []string, shown bool) string {
	if !shown {
		return "call with a credential that may read limits to see which"
	}
	var quoted []string
	for _, name := range names[:min(len(names), maxNames)] {
		quoted = append(quoted, strconv.Quote(name))
	}
	if more := len(names) - len(quoted); more > 0 {
		quoted = append(quoted, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(quoted, ", ")
}
