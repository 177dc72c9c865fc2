package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) plansExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain USER", Short: "Show which limits apply to a user, and what the user's streams count for", Args: argRange(1, 1),
		Long: `Show the plan of a user and where it comes from, each limit, and what the user's streams
count for. A plan that a start or a token names is not known before the start: the plan
is that of the user's newest stream.`,
		Example: `  streamcount plans explain maya`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.Explanation, error) {
				return c.ExplainLimits(cmd.Context(), args[0])
			}, func(x apitype.Explanation) error { return a.printExplanation(args[0], x) })
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

// originTexts are the values of From in an explanation, in words.
var originTexts = map[string]string{
	"override": "set for the user", "start": "stated by the start of the newest stream", "default": "for users without another plan",
	"configuration": "from the configuration of the node",
}

func (a *app) printExplanation(user string, x apitype.Explanation) error {
	origin := originTexts[x.From]
	if origin == "" {
		origin = x.From
	}
	until := ""
	if x.Until != nil {
		until = "; what is set for the user ends at " + x.Until.UTC().Format(time.RFC3339)
	}
	if err := a.printf("user %s: plan %s, %s%s\n", printable(user), printable(x.Plan), printable(origin), until); err != nil {
		return err
	}
	rows := [][]string{{"LIMIT", "VALUE", "COUNTED", "MAX", "LEFT", "NOTE"}}
	for _, l := range x.Limits {
		value := "-"
		switch {
		case l.Value != nil && *l.Value == "":
			value = l.Per + " missing"
		case l.Value != nil:
			value = l.Per + " " + *l.Value
		case l.Per != "":
			value = "each " + l.Per
		}
		rows = append(rows, []string{
			l.Name, value, fmt.Sprint(l.Counted), fmt.Sprint(l.Limit), fmt.Sprint(l.Left), orDash(usageNote(l)),
		})
	}
	return a.printTable(rows, "LIMIT")
}

func usageNote(l apitype.LimitUsage) string {
	note := ""
	add := func(text string) {
		if note != "" {
			note += ", "
		}
		note += text
	}
	if l.Count != "" && l.Count != "streams" {
		add("counts " + l.Count)
	}
	switch l.From {
	case "override":
		add("the user's own limit")
	case "start":
		add("limit of a token")
	}
	if l.Observe {
		add("only observed")
	}
	if l.MoreValues > 0 {
		add(fmt.Sprintf("%d more values", l.MoreValues))
	}
	return note
}
