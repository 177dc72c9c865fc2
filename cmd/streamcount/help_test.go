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
)

// everyCommand is all commands that people are shown, with the root.
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

// ownHelp tells cobra's commands from ours: they bring their own help.
func ownHelp(cmd *cobra.Command) bool {
	return !strings.HasPrefix(cmd.CommandPath(), "streamcount completion")
}

// exampleArgs is an example without what the shell makes of it.
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

// Every command has help, and examples that its own flags and arguments allow.
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
			found, rest, err := (&app{}).root().Find(joinEvery(words[1:]))
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

// What is printed for machines exists wherever something is printed that they could want.
func TestHelp_JSONEverywhere(t *testing.T) {
	without := []string{"streamcount serve"} // it logs, and --log-format is about that
	for _, cmd := range everyCommand(t) {
		if cmd.HasSubCommands() || !ownHelp(cmd) {
			continue
		}
		if cmd.Flags().Lookup("json") == nil {
			assert.Contains(t, without, cmd.CommandPath())
		}
	}
}

func TestMan_EveryCommandHasItsPage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	cli{t: t}.run(exitOK, "man", dir)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	commands := everyCommand(t)
	assert.Len(t, files, len(commands))
	for _, cmd := range commands {
		b, err := os.ReadFile(filepath.Join(dir, pageName(cmd)+".1"))
		require.NoError(t, err)
		page := string(b)
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS"} {
			assert.Equal(t, 1, strings.Count(page, ".SH "+section+"\n"), "%s: %s", cmd.CommandPath(), section)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			assert.Contains(t, page, `\fB`+roffWord("--"+f.Name)+`\fR`, cmd.CommandPath())
		})
		for _, sub := range shownCommands(cmd) {
			assert.Contains(t, page, roffWord(pageName(sub)), cmd.CommandPath())
		}
	}
	_, errOut := cli{t: t}.run(exitError, "man", "/dev/null/x")
	assert.Contains(t, errOut, "write manual pages")
}

// man itself finds nothing wrong with them.
func TestMan_IsReadable(t *testing.T) {
	man, err := exec.LookPath("man")
	if err != nil {
		require.Empty(t, os.Getenv("STREAMCOUNT_REQUIRE_ALL"), "man is not installed")
		t.Skip("man is not installed")
	}
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

func TestRoff(t *testing.T) {
	assert.Equal(t, "a \\e b\n.PP\n\\&.TH x\n.nf\n  \\-\\-flag\n.fi", roff("a \\ b\n\n.TH x\n  --flag"))
}
