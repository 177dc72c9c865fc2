package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// A build identifies the program.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, if known
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func buildVersion() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	return b
}

func (b build) String() string {
	if b.Revision == "" {
		return fmt.Sprintf("streamcount %s (%s, %s)", b.Version, b.Go, b.Platform)
	}
	return fmt.Sprintf("streamcount %s (%s, %s, %s)", b.Version, b.Revision, b.Go, b.Platform)
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of the program",
		Example: `  streamcount version --json`,
		Args:    argRange(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(buildVersion())
			}
			return a.printf("%s\n", buildVersion())
		},
	}
	a.addJSONFlag(cmd)
	return cmd
}
