package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"streamcount/internal/bench"
	"streamcount/internal/display"
)

// printReport prints r as tables, or as JSON.
func (a *app) printReport(r *bench.Report, asJSON bool) error {
	var b strings.Builder
	if asJSON {
		doc, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the report: %w", err)
		}
		b.WriteString(display.PrintableJSON(doc) + "\n")
	} else {
		a.writeTables(&b, r)
	}
	if _, err := fmt.Fprint(a.out, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func (a *app) writeTables(b *strings.Builder, r *bench.Report) {
	fmt.Fprintf(b, "%s\n", display.Printable(strings.Join(r.Command, " ")))
	if r.Version != "" {
		fmt.Fprintf(b, "%s\n", display.Printable(r.Version))
	}
	if r.BaseVersion != "" {
		fmt.Fprintf(b, "base: %s\n", display.Printable(r.BaseVersion))
	}
	fmt.Fprintf(b, "on %s\n\n", display.Printable(r.Machine.String()))
	screen := display.ScreenOf(a.out, a.environ)
	for _, rows := range [][][]string{r.ScaleTable(), r.CallTable(), r.GoodputTable(), r.RatioTable(), r.CostTable(), r.GrowthTable()} {
		if rows == nil {
			continue
		}
		for _, line := range (display.Table{Rows: rows}).Lines(screen) {
			fmt.Fprintf(b, "%s\n", line)
		}
		b.WriteByte('\n')
	}
	if n := r.Settings["runs"]; n != 1 {
		fmt.Fprintf(b, "Medians of %v runs. A ratio is the median of the ratios of the runs.\n", n)
	}
}

// verdict returns an error if a check of the node failed.
func verdict(r *bench.Report) error {
	var list []string
	for _, f := range r.Violations() {
		list = append(list, fmt.Sprintf("%d %s (for example: %s)", f.Count, f.Kind, f.Example))
	}
	if len(list) == 0 {
		return nil
	}
	return errors.New("the node failed the benchmark's checks: " + strings.Join(list, "; "))
}

// writePlots writes the plots of r to the directory dir, unless dir is "".
func writePlots(dir string, r *bench.Report) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, p := range r.Plots() {
		if err := os.WriteFile(filepath.Join(dir, p.Name), p.SVG, 0o644); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	return nil
}
