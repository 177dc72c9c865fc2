package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Write a manual page for each command into a directory, for packagers. Where man
looks for them is something like /usr/local/share/man/man1.`,
		Example: `  streamcount man /usr/local/share/man/man1`,
		Hidden:  true,
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			return writeManual(cmd.Root(), args[0])
		},
	}
}

// writeManual writes the pages of cmd and of those below it.
func writeManual(cmd *cobra.Command, dir string) error {
	if cmd.Hidden || cmd.Name() == "help" { // which is not about the service
		return nil
	}
	cmd.InitDefaultHelpFlag()
	if err := os.WriteFile(filepath.Join(dir, pageName(cmd)+".1"), []byte(manual(cmd)), 0o644); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	for _, sub := range cmd.Commands() {
		if err := writeManual(sub, dir); err != nil {
			return err
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manual is the page of one command, as roff.
func manual(cmd *cobra.Command) string {
	var b strings.Builder
	name := pageName(cmd)
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"streamcount %s\" \"streamcount manual\"\n.nh\n.ad l\n",
		roffWord(strings.ToUpper(name)), roffWord(version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roffWord(name), roff(cmd.Short))
	b.WriteString(".SH SYNOPSIS\n")
	for i, line := range strings.Split(cmd.UseLine(), " | ") {
		if i > 0 {
			line = cmd.Parent().CommandPath() + " " + line
		}
		fmt.Fprintf(&b, "\\fB%s\\fR\n.br\n", roffWord(line))
	}
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", roff(longOf(cmd)))
	if subs := shownCommands(cmd); len(subs) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range subs {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR(1)\n%s\n", roffWord(pageName(sub)), roff(sub.Short))
		}
	}
	b.WriteString(".SH OPTIONS\n")
	cmd.Flags().VisitAll(func(f *pflag.Flag) { b.WriteString(manualFlag(f)) })
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
	b.WriteString(".SH EXIT STATUS\n")
	for code, what := range exitTexts {
		fmt.Fprintf(&b, ".TP\n%d\n%s\n", code, roff(what))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n\\fB%s\\fR(1)\n", roffWord(pageName(cmd.Parent())))
	}
	return b.String()
}

func longOf(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short + "."
}

func shownCommands(cmd *cobra.Command) []*cobra.Command {
	var shown []*cobra.Command
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			shown = append(shown, sub)
		}
	}
	return shown
}

func manualFlag(f *pflag.Flag) string {
	if f.Hidden {
		return ""
	}
	kind, usage := pflag.UnquoteUsage(f)
	head := "\\fB" + roffWord("--"+f.Name) + "\\fR"
	if f.Shorthand != "" {
		head = "\\fB" + roffWord("-"+f.Shorthand) + "\\fR, " + head
	}
	if kind != "" {
		head += " \\fI" + roffWord(kind) + "\\fR"
	}
	if worth := f.DefValue; worth != "" && worth != "[]" && f.Value.Type() != "bool" && !strings.Contains(usage, "(default") {
		usage += " (default " + worth + ")"
	}
	return fmt.Sprintf(".TP\n%s\n%s\n", head, roff(usage))
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

func roffWord(s string) string { return roffEscapes.Replace(s) }

// roff is text with its paragraphs, and with its lists as they are.
func roff(text string) string {
	var out []string
	kept := false
	for line := range strings.SplitSeq(text, "\n") {
		if asIs := strings.HasPrefix(line, "  "); asIs != kept {
			kept = asIs
			out = append(out, map[bool]string{true: ".nf", false: ".fi"}[kept])
		}
		switch line = roffWord(line); {
		case line == "":
			line = ".PP"
		case line[0] == '.':
			line = `\&` + line
		}
		out = append(out, line)
	}
	if kept {
		out = append(out, ".fi")
	}
	return strings.Join(out, "\n")
}
