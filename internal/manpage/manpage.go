// Package manpage writes the manual pages of a command line.
package manpage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// Write writes one page per available command of root to dir, which it creates. source is
// the name and the version of the program, and exitTexts describes the exit codes from 0
// on. Write changes the texts of the commands.
func Write(root *cobra.Command, dir, source string, exitTexts []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	if err := write(root, dir, source, exitTexts); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	return nil
}

func write(cmd *cobra.Command, dir, source string, exitTexts []string) error {
	escapeMarkdown(cmd)
	cmd.DisableAutoGenTag = true // no HISTORY section
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Source: source, Manual: cmd.Root().Name() + " manual"}
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return err
	}
	page.WriteString("\n.SH EXIT STATUS\n")
	for code, meaning := range exitTexts {
		fmt.Fprintf(&page, ".TP\n%d\n%s\n", code, strings.ReplaceAll(meaning, "'", `\(aq`))
	}
	if err := os.WriteFile(filepath.Join(dir, FileName(cmd)), page.Bytes(), 0o644); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			if err := write(sub, dir, source, exitTexts); err != nil {
				return err
			}
		}
	}
	return nil
}

// FileName returns the name of the page of cmd.
func FileName(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
}

var markdownEscapes = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", `\<`)

// escapeMarkdown escapes the texts of cmd, which package doc takes for Markdown. Indented
// lines become blocks.
func escapeMarkdown(cmd *cobra.Command) {
	lines := strings.Split(cmd.Long, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "    " + line
		} else {
			lines[i] = markdownEscapes.Replace(line)
		}
	}
	cmd.Long = strings.Join(lines, "\n")
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		f.Usage = markdownEscapes.Replace(usage)
	})
}
