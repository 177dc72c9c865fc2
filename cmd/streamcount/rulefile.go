package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"streamcount/api/apitype"
	"streamcount/api/preview"
	"streamcount/client"
	"streamcount/internal/yamlfile"
)

const fileHelp = `With --file, apply the plans and limits of a YAML file in one transaction:

  plans:
    default: {limit: 3}
    family: {limit: 5, onLimit: replace-oldest, count: content}
    one-tv:
      limit: 3
      limits:
      - {name: tv, where: {device.type: [tv, stb, ""]}, limit: 1, message: Only one TV at a time}
    old: null             # removes the plan
  users:
    maya: {plan: family}
    tom: {limit: 1}
    ben: {plan: one-tv, limits: {tv: 2}, until: 2027-01-31T00:00:00Z}
    ida: null             # removes the limit or plan of the user

Plans and users that the file does not name are not changed. The command prints the
changes and asks for confirmation, unless --yes is given. Either all changes are
applied or none: none if another caller has changed a rule since they were printed.`

// A ruleFile is the content of --file. Null removes a rule.
type ruleFile struct {
	Plans map[string]*apitype.PlanRule  `json:"plans"`
	Users map[string]*apitype.LimitRule `json:"users"`
}

// applyFile applies a file. If there is a name in args, the file contains only the rule of
// that name, which one returns; if one is nil, there must be no name. applyFile returns an
// error if any of the other flags are given.
func (a *app) applyFile(
	cmd *cobra.Command, args []string, f fileFlags, others []string, one func(name string, text []byte) (apitype.RuleSet, error),
) (err error) {
	if one == nil && len(args) > 0 || slices.ContainsFunc(others, cmd.Flags().Changed) {
		return usageError{fmt.Errorf("--file cannot be combined with --%s, and not with the name of a user (see %s --help)",
			strings.Join(others, ", --"), cmd.CommandPath())}
	}
	var set apitype.RuleSet
	if len(args) == 0 {
		set, err = readRuleFile(f.path, a.in)
	} else {
		set, err = readOneRule(f.path, a.in, args[0], one)
	}
	if err != nil {
		return err
	}
	c, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, c.Close(cmd.Context())) }()
	return a.applyRules(cmd, c, set, f)
}

func (a *app) applyRules(cmd *cobra.Command, c *client.Client, set apitype.RuleSet, f fileFlags) error {
	set.DryRun = true
	diff, err := c.ApplyRules(cmd.Context(), set)
	if err != nil {
		return err
	}
	none := len(diff.Plans)+len(diff.Users) == 0
	if !a.json {
		if err := a.printDiff(diff); err != nil {
			return err
		}
	}
	if f.dryRun || none {
		return a.jsonOnly(diff)
	}
	err = a.confirm(f.yes, f.path != "-", "apply these changes?", "pass --yes to apply the changes, or --dry-run")
	if err != nil {
		return err
	}
	set.DryRun, set.Revision = false, diff.Revision
	done, err := c.ApplyRules(cmd.Context(), set)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	return a.printf("applied %d changes at revision %d\n", len(done.Plans)+len(done.Users), done.Revision)
}

// jsonOnly prints v if --json is given.
func (a *app) jsonOnly(v any) error {
	if a.json {
		return a.printJSON(v)
	}
	return nil
}

// confirm asks the user at the terminal, unless yes is set. Without a terminal, or if the
// standard input is not for answers, it returns an error with advice.
func (a *app) confirm(yes, answers bool, question, advice string) error {
	if yes {
		return nil
	}
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) || !answers {
		return usageError{errors.New("not a terminal: " + advice)}
	}
	if _, err := fmt.Fprint(a.errOut, question+" [y/N] "); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if s := strings.ToLower(strings.TrimSpace(answer)); s != "y" && s != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// readText returns the content of a file, or of the standard input for "-".
func readText(path string, stdin io.Reader) (text []byte, err error) {
	if path == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("file: %w", err)}
	}
	return text, nil
}

// readOneRule returns the set that consists of the rule in a file.
func readOneRule(
	path string, stdin io.Reader, name string, one func(name string, text []byte) (apitype.RuleSet, error),
) (apitype.RuleSet, error) {
	text, err := readText(path, stdin)
	if err != nil {
		return apitype.RuleSet{}, err
	}
	set, err := one(name, text)
	if err != nil {
		why := strings.Join(strings.Fields(err.Error()), " ") // the error has several lines
		return set, usageError{fmt.Errorf("file %s: %s", path, why)}
	}
	return set, nil
}

// planInFile returns the set with the plan in text.
func planInFile(name string, text []byte) (apitype.RuleSet, error) {
	var p apitype.PlanRule
	err := cmp.Or(yaml.UnmarshalStrict(text, &p), yamlfile.CheckOneDocument(text))
	return apitype.RuleSet{Plans: map[string]apitype.PlanRule{name: p}}, err
}

func readRuleFile(path string, stdin io.Reader) (apitype.RuleSet, error) {
	text, err := readText(path, stdin)
	if err != nil {
		return apitype.RuleSet{}, err
	}
	var file ruleFile
	err = cmp.Or(yaml.UnmarshalStrict(text, &file), yamlfile.CheckOneDocument(text))
	if err != nil {
		why := strings.Join(strings.Fields(err.Error()), " ") // the error has several lines
		return apitype.RuleSet{}, usageError{fmt.Errorf("file %s: want maps of plans and users: %s", path, why)}
	}
	set := apitype.RuleSet{Plans: map[string]apitype.PlanRule{}, Users: map[string]apitype.LimitRule{}}
	for name, p := range file.Plans {
		switch {
		case p == nil:
			set.RemovePlans = append(set.RemovePlans, name)
		case p.Limit == nil && len(p.Limits) == 0:
			return set, usageError{fmt.Errorf("file %s: plan %q has no limit", path, name)}
		default:
			set.Plans[name] = *p
		}
	}
	for user, l := range file.Users {
		switch {
		case l == nil:
			set.RemoveUsers = append(set.RemoveUsers, user)
		case l.Limit != nil && l.Plan != "":
			return set, usageError{fmt.Errorf("file %s: user %q: want either a limit or a plan", path, user)}
		case l.Limit == nil && l.Plan == "" && len(l.Limits) == 0:
			return set, usageError{fmt.Errorf("file %s: user %q: want a limit or a plan, or limits by name", path, user)}
		default:
			set.Users[user] = *l
		}
	}
	return set, nil
}

// printDiff prints the rules that are added (+), changed (~) and removed (-).
func (a *app) printDiff(c apitype.RuleChanges) error {
	var lines []string
	for _, p := range c.Plans {
		lines = append(lines, planDiff(p)...)
		if p.New == nil {
			continue
		}
		warnings, _ := preview.Warnings("", *p.New) // the service has accepted the plan
		for _, w := range warnings {
			lines = append(lines, fmt.Sprintf("  warning: plan %s: %s", printable(p.Name), printable(w)))
		}
	}
	for _, u := range c.Users {
		lines = append(lines, diffLine("user "+u.UserID, u.Old, u.New, limitText))
	}
	if len(lines) == 0 {
		return a.printf("no differences\n")
	}
	return a.printf("%s\n", strings.Join(lines, "\n"))
}

// planDiff returns the differences of a plan. If it has changed, each further limit that
// differs has a line.
func planDiff(c apitype.PlanChange) []string {
	what := "plan " + c.Name
	if c.Old == nil || c.New == nil || len(c.Changes) == 0 {
		return []string{diffLine(what, c.Old, c.New, planText)}
	}
	var lines []string
	if totalText(*c.Old) != totalText(*c.New) {
		lines = append(lines, diffLine(what, c.Old, c.New, totalText))
	}
	for _, change := range c.Changes {
		lines = append(lines, fmt.Sprintf("~ %s: %s", printable(what), printable(change)))
	}
	return lines
}

func diffLine[T any](what string, before, after *T, text func(T) string) string {
	what = printable(what)
	switch {
	case before == nil:
		return fmt.Sprintf("+ %s: %s", what, text(*after))
	case after == nil:
		return fmt.Sprintf("- %s: %s", what, text(*before))
	}
	return fmt.Sprintf("~ %s: %s -> %s", what, text(*before), text(*after))
}
