package main

import (
	"github.com/spf13/cobra"

	"streamcount/internal/manpage"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Write one manual page per command into a directory, for packages. A directory that
man searches is /usr/local/share/man/man1. The pages have the current date, or that of
SOURCE_DATE_EPOCH if it is set.`,
		Example: `  streamcount man /usr/local/share/man/man1`,
		Hidden:  true,
		Args:    argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return manpage.Write(cmd.Root(), args[0], "streamcount "+version, exitTexts[:])
		},
	}
}
