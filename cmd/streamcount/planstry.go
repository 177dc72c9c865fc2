package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"streamcount/api/apitype"
	"streamcount/api/preview"
	"streamcount/internal/yamlfile"
)

const tryHelp = `Check the plans in a YAML file, and decide on the starts in a second file as a node
would. No server is needed, so the command is suitable for tests of a repository that
contains the plans.

The first file is that of "plans set --file". The second is a list of cases:

  - name: a second TV
    plan: one-tv
    streams:              # the streams that run, oldest first; optional
    - {device: {type: tv}}
    start: {device: {type: tv}}
    want: {admitted: false, limits: [tv]}
  - name: a second TV that replaces the first
    plan: one-tv
    streams:
    - {device: {type: tv}}
    start: {device: {type: tv}, replaces: "0"}
    want: {admitted: true, ends: [0]}

A stream and a start have the members of the body of a start. In addition they have
region, and replaces contains the index of a stream, or a list of indexes, as text. The
result that a case wants has these members. A list that is left out is empty.

  admitted   whether the start is admitted
  limits     the names of the limits that reject it; "total" is that of the plan itself
  ends       the indexes of the streams that end, in ascending order
  missing    the attributes that the plan requires and the start does not state
  observed   the names of the limits with observe that do not hold

The command prints a line for each case. The exit code is 1 if a result differs, and 2
if a file is not valid.`

func (a *app) plansTryCommand() *cobra.Command {
	var casesFile string
	cmd := &cobra.Command{
		Use: "try FILE", Short: "Check plans in a file, and try starts under them without a server", Long: tryHelp, Args: argRange(1, 1),
		Example: `  streamcount plans try plans.yaml
  streamcount plans try plans.yaml --cases cases.yaml`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault // the shell completes names of files
		},
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := readRuleFile(args[0], a.in)
			if err != nil {
				return err
			}
			warnings, err := a.checkPlans(args[0], set)
			if err != nil {
				return err
			}
			if casesFile != "" {
				return a.tryCases(set, casesFile)
			}
			if a.json {
				return a.printJSON(warnings)
			}
			return a.printf("%d %s\n", len(set.Plans), plural(len(set.Plans), "valid plan"))
		},
	}
	cmd.Flags().StringVar(&casesFile, "cases", "", "YAML `file` with the cases")
	a.addJSONFlag(cmd)
	return cmd
}

// checkPlans returns the warnings about the plans in a file by their names, and prints
// them. It returns an error if a plan is invalid.
func (a *app) checkPlans(path string, set apitype.RuleSet) (map[string][]string, error) {
	out := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(set.Plans)) {
		warnings, err := preview.Warnings("plans."+name, set.Plans[name])
		if err != nil {
			return nil, usageError{fmt.Errorf("file %s: %w", path, err)}
		}
		out[name] = append([]string{}, warnings...)
		for _, w := range warnings {
			// A warning is optional.
			_, _ = fmt.Fprintf(a.errOut, "streamcount: warning: plan %s: %s\n", printable(name), printable(w))
		}
	}
	return out, nil
}

// A planCase is a start to try, and the result that it should have.
type planCase struct {
	Name    string             `json:"name"`
	Plan    string             `json:"plan"`
	Streams []apitype.TryStart `json:"streams"`
	Start   apitype.TryStart   `json:"start"`
	Want    struct {
		Admitted *bool    `json:"admitted"`
		Limits   []string `json:"limits"`
		Ends     []int    `json:"ends"`
		Missing  []string `json:"missing"`
		Observed []string `json:"observed"`
	} `json:"want"`
}

// A caseResult is the result of a case.
type caseResult struct {
	Plan        string            `json:"plan"`
	Name        string            `json:"name"`
	OK          bool              `json:"ok"`
	Differences []string          `json:"differences,omitempty"`
	Result      apitype.TryResult `json:"result"`
}

// tryCases prints the result of each case in a file. It returns an error if one of them has
// another result than it wants.
func (a *app) tryCases(set apitype.RuleSet, path string) error {
	cases, err := readCases(path)
	if err != nil {
		return err
	}
	results := make([]caseResult, len(cases))
	failed := 0
	for i, c := range cases {
		plan, ok := set.Plans[c.Plan]
		if !ok {
			return usageError{fmt.Errorf("file %s: [%d].plan: the plan %q is not in the file of plans", path, i, c.Plan)}
		}
		got, err := preview.Try(fmt.Sprintf("[%d]", i), apitype.Try{Plan: plan, Streams: c.Streams, Start: c.Start})
		if err != nil {
			return usageError{fmt.Errorf("file %s: %w", path, err)}
		}
		differences := c.differences(got)
		results[i] = caseResult{Plan: c.Plan, Name: c.Name, OK: len(differences) == 0, Differences: differences, Result: got}
		if len(differences) > 0 {
			failed++
		}
	}
	if err := a.printCases(results); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases differ", failed, len(cases))
	}
	return nil
}

func (a *app) printCases(results []caseResult) error {
	if a.json {
		return a.printJSON(results)
	}
	for _, r := range results {
		line := fmt.Sprintf("ok    %s: %s", r.Plan, r.Name)
		if !r.OK {
			line = fmt.Sprintf("FAIL  %s: %s: %s", r.Plan, r.Name, strings.Join(r.Differences, "; "))
		}
		if err := a.printf("%s\n", printable(line)); err != nil {
			return err
		}
	}
	return nil
}

func readCases(path string) ([]planCase, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("file: %w", err)}
	}
	var cases []planCase
	if err := cmp.Or(yaml.UnmarshalStrict(text, &cases), yamlfile.CheckOneDocument(text)); err != nil {
		why := strings.Join(strings.Fields(err.Error()), " ") // the error has several lines
		return nil, usageError{fmt.Errorf("file %s: want a list of cases: %s", path, why)}
	}
	if len(cases) == 0 {
		return nil, usageError{fmt.Errorf("file %s: no cases", path)}
	}
	for i, c := range cases {
		switch {
		case c.Name == "":
			err = errors.New("a case has a name")
		case c.Plan == "":
			err = errors.New("a case names a plan")
		case c.Want.Admitted == nil:
			err = errors.New("want.admitted is true or false")
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("file %s: [%d]: %w", path, i, err)}
		}
	}
	return cases, nil
}

// differences returns how a result differs from what the case wants, in words.
func (c *planCase) differences(got apitype.TryResult) (out []string) {
	if got.Admitted != *c.Want.Admitted {
		out = append(out, fmt.Sprintf("admitted is %t, want %t", got.Admitted, *c.Want.Admitted))
	}
	limits := []string{}
	for _, l := range got.Limits {
		limits = append(limits, l.Name)
	}
	for _, list := range []struct {
		name      string
		got, want []string
	}{
		{"limits", limits, c.Want.Limits}, {"missing", got.Missing, c.Want.Missing}, {"observed", got.Observed, c.Want.Observed},
	} {
		if !slices.Equal(list.got, list.want) {
			out = append(out, fmt.Sprintf("%s are [%s], want [%s]", list.name, strings.Join(list.got, ", "), strings.Join(list.want, ", ")))
		}
	}
	if !slices.Equal(got.Ends, c.Want.Ends) {
		out = append(out, fmt.Sprintf("ends are %v, want %v", got.Ends, c.Want.Ends))
	}
	return out
}
