package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) endCommand() *cobra.Command {
	var where []string
	var q apitype.EndStreams
	var yes bool
	cmd := &cobra.Command{
		Use: "end --where CONDITION...", Short: "End the streams of all users that fulfil conditions", Args: argRange(0, 0),
		Long: `End the streams of all users that fulfil all conditions, for example when the rights of a
title expire. A condition is ATTRIBUTE=VALUE,VALUE (one of the values) or
ATTRIBUTE!=VALUE,VALUE (none of them). An empty value stands for a missing attribute. The
attributes are device.id, device.type, content.id, content.type, content.labels, profile,
network, region and labels.KEY.

The command counts the streams, asks for confirmation unless --yes is given, and repeats
the call until none of them runs. Streams that start later are not ended: first forbid them
by a limit of 0 in the plans of the users. It is safe to repeat.`,
		Example: `  streamcount end --where content.id=film-77 --dry-run
  streamcount end --where content.id=film-77 --where region=eu,us --yes
  streamcount end --where content.labels=rights-x --where labels.tier!=paid`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if q.Where, err = parseWhere(where); err != nil {
				return usageError{err}
			}
			if q.Max < 0 {
				return usageError{errors.New("--max: want a number of streams, or 0 for all of them")}
			}
			return call(a, cmd, func(c *client.Client) (apitype.EndedStreams, error) {
				return a.endStreams(cmd.Context(), c, q, yes)
			}, a.printEnded)
		},
	}
	cmd.Flags().StringArrayVar(&where, "where", nil, "a `condition`; may be repeated")
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "only show what would end")
	cmd.Flags().IntVar(&q.Max, "max", 0, "maximum `number` of streams to end; 0 means all")
	cmd.Flags().BoolVar(&yes, "yes", false, "end the streams without a prompt")
	a.addClientFlags(cmd)
	return cmd
}

// parseWhere parses conditions.
func parseWhere(conditions []string) (apitype.Where, error) {
	if len(conditions) == 0 {
		return nil, errors.New("--where: want at least one condition, for example content.id=film-77")
	}
	out := apitype.Where{}
	for _, text := range conditions {
		attribute, list, ok := strings.Cut(text, "=")
		attribute, unequal := strings.CutSuffix(attribute, "!")
		if !ok || attribute == "" {
			return nil, fmt.Errorf("--where %s: want ATTRIBUTE=VALUE,VALUE or ATTRIBUTE!=VALUE,VALUE", printable(text))
		}
		if _, twice := out[attribute]; twice {
			return nil, fmt.Errorf("--where: two conditions have the attribute %s: separate the values by commas", printable(attribute))
		}
		values := strings.Split(list, ",")
		if unequal {
			out[attribute] = apitype.Values{Not: values}
		} else {
			out[attribute] = apitype.Values{In: values}
		}
	}
	return out, nil
}

// endStreams ends the streams after a dry run and a confirmation. It repeats the call while
// streams remain and calls make progress.
func (a *app) endStreams(ctx context.Context, c *client.Client, q apitype.EndStreams, yes bool) (apitype.EndedStreams, error) {
	dry := q
	dry.DryRun = true
	total, err := c.EndStreams(ctx, dry)
	if err != nil || q.DryRun || total.Matched == 0 && total.Complete {
		return total, err
	}
	most := total.Matched
	if q.Max > 0 {
		most = min(most, q.Max)
	}
	if err := a.confirm(yes, true, endQuestion(q.Where, most, total), "pass --yes to end the streams, or --dry-run"); err != nil {
		return total, err
	}
	total = apitype.EndedStreams{}
	limited := q.Max > 0
	for {
		res, err := c.EndStreams(ctx, q)
		if err != nil {
			if total.Ended > 0 {
				err = fmt.Errorf("%d streams were ended before: %w", total.Ended, err)
			}
			return total, err
		}
		total.Matched = max(total.Matched, total.Ended+res.Matched)
		total.Users = max(total.Users, res.Users)
		total.Ended += res.Ended
		total.Complete = res.Complete
		q.Max -= res.Ended
		if res.Complete || res.Ended == 0 || limited && q.Max <= 0 {
			return total, nil
		}
		if !limited {
			q.Max = 0
		}
	}
}

func endQuestion(where apitype.Where, most int, found apitype.EndedStreams) string {
	var conditions []string
	for _, attribute := range slices.Sorted(maps.Keys(where)) {
		conditions = append(conditions, conditionText(attribute, where[attribute]))
	}
	atLeast := ""
	if !found.Complete {
		atLeast = "at least "
	}
	return fmt.Sprintf("end %s%d of %d streams of %d users, where %s?", atLeast, most, found.Matched, found.Users, strings.Join(conditions, " and "))
}

func (a *app) printEnded(r apitype.EndedStreams) error {
	if !r.DryRun {
		text := fmt.Sprintf("ended %d of %d streams of %d users\n", r.Ended, r.Matched, r.Users)
		if !r.Complete {
			text += "streams that matched may still run: repeat the command\n"
		}
		return a.printf("%s", text)
	}
	if !r.Complete {
		if err := a.printf("not all streams could be read: the numbers may be too low\n"); err != nil {
			return err
		}
	}
	if err := a.printf("matched: %d streams of %d users; nothing was ended\n", r.Matched, r.Users); err != nil {
		return err
	}
	for _, s := range r.Sample {
		content := ""
		if s.Content != nil {
			content = cmp.Or(s.Content.ID, s.Content.Title)
		}
		if err := a.printf("  user %s, region %s, content %s\n", printable(s.UserID), printable(cmp.Or(s.Region, "-")), printable(cmp.Or(content, "-"))); err != nil {
			return err
		}
	}
	if more := r.Matched - len(r.Sample); more > 0 && len(r.Sample) > 0 {
		return a.printf("  and %d more\n", more)
	}
	return nil
}
