package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/manpage"
	"streamcount/internal/testing/longtest"
)

// everyCommand returns the root and all commands that are not hidden.
func everyCommand(t *testing.T) []*cobra.Command {
	t.Helper()
	var all []*cobra.Command
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		cmd.InitDefaultHelpFlag()
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).root())
	require.Greater(t, len(all), 30)
	return all
}

// ownHelp reports whether cmd is not one of the commands that cobra adds.
func ownHelp(cmd *cobra.Command) bool {
	return !strings.HasPrefix(cmd.CommandPath(), "streamcount completion")
}

// exampleArgs returns the arguments of an example, without shell syntax.
func exampleArgs(line string) []string {
	line, _, _ = strings.Cut(line, " | ")
	if before, after, ok := strings.Cut(line, `"$(`); ok {
		_, after, _ = strings.Cut(after, `)"`)
		line = before + "X" + after
	}
	parts := strings.Split(line, `"`)
	for i := 1; i < len(parts); i += 2 {
		parts[i] = strings.ReplaceAll(parts[i], " ", "_")
	}
	return strings.Fields(strings.Join(parts, ""))
}

// Every command has help, and examples that its flags and arguments allow.
func TestHelp_EveryCommandAndFlag(t *testing.T) {
	for _, cmd := range everyCommand(t) {
		path := cmd.CommandPath()
		assert.NotEmpty(t, cmd.Short, path)
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			assert.NotEmpty(t, f.Usage, "%s --%s", path, f.Name)
		})
		if !ownHelp(cmd) {
			continue
		}
		assert.False(t, strings.HasSuffix(cmd.Short, "."), "%s: a short text is no sentence", path)
		for line := range strings.SplitSeq(cmd.Long, "\n") {
			assert.LessOrEqual(t, len(line), 115, "%s: %q", path, line)
		}
		if !cmd.HasSubCommands() || !cmd.HasParent() {
			assert.NotEmpty(t, cmd.Example, "%s has no example", path)
		}
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if line == "" {
				continue
			}
			words := exampleArgs(line)
			require.Equal(t, "streamcount", words[0], path)
			found, rest, err := (&app{}).root().Find(joinEveryFlag(words[1:]))
			require.NoError(t, err, line)
			require.NoError(t, found.ParseFlags(rest), line)
			assert.NoError(t, found.ValidateArgs(found.Flags().Args()), line)
			if cmd.HasParent() {
				assert.True(t, strings.HasPrefix(found.CommandPath(), cmd.CommandPath()) ||
					strings.Contains(cmd.Example, path), "%s shows %s", path, line)
			}
		}
	}
}

// Every command that prints data has --json.
func TestHelp_JSONEverywhere(t *testing.T) {
	without := []string{"streamcount serve"} // it prints a log, which has --log-format
	for _, cmd := range everyCommand(t) {
		if cmd.HasSubCommands() || !ownHelp(cmd) {
			continue
		}
		if cmd.Flags().Lookup("json") == nil {
			assert.Contains(t, without, cmd.CommandPath())
		}
	}
}

func TestMan_Pages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	cli{t: t}.run(exitOK, "man", dir)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	commands := everyCommand(t)
	assert.Len(t, files, len(commands))
	for _, cmd := range commands {
		b, err := os.ReadFile(filepath.Join(dir, manpage.FileName(cmd)))
		require.NoError(t, err)
		page := string(b)
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS"} {
			assert.Equal(t, 1, strings.Count(page, ".SH "+section+"\n"), "%s: %s", cmd.CommandPath(), section)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			assert.Contains(t, page, "--"+f.Name+`\fP`, cmd.CommandPath())
		})
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				assert.Contains(t, page, strings.TrimSuffix(manpage.FileName(sub), ".1"), cmd.CommandPath())
			}
		}
	}
	_, errOut := cli{t: t}.run(exitError, "man", "/dev/null/x")
	assert.Contains(t, errOut, "write manual pages")
}

// man renders the pages without warnings.
func TestMan_Renders(t *testing.T) {
	man := longtest.Program(t, "man")
	dir := t.TempDir()
	cli{t: t}.run(exitOK, "man", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.1"))
	require.NoError(t, err)
	for _, file := range files {
		cmd := exec.CommandContext(t.Context(), man, "--warnings", "-l", file)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANPAGER=cat", "MANWIDTH=80", "MANROFFOPT=")
		var errOut strings.Builder
		cmd.Stderr = &errOut
		out, err := cmd.Output()
		require.NoError(t, err, "%s: %s", file, &errOut)
		assert.Empty(t, errOut.String(), file)
		assert.Contains(t, string(out), "EXIT STATUS", file)
	}
}

// Texts are not interpreted as Markdown.
func TestMan_Texts(t *testing.T) {
	dir := t.TempDir()
	cli{t: t}.run(exitOK, "man", dir)
	for file, texts := range map[string][]string{
		"streamcount-serve.1":      {"https://*\\&.app.example", "STREAMCOUNT_LIMIT"},
		"streamcount-limits-set.1": {"\n    family: {limit: 5, onLimit: replace-oldest, count: content}\n"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		for _, text := range texts {
			assert.Contains(t, string(b), text, file)
		}
	}
}
