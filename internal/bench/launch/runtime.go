package launch

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Runtime returns the metrics of Go's runtime that the target reports at /metrics, by
// name. It is empty if the target reports none.
func (s *Target) Runtime(ctx context.Context) map[string]float64 {
	values := make(map[string]float64)
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/metrics", nil)
	if err != nil {
		return values
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return values
	}
	defer func() { _ = resp.Body.Close() }() // the body has been read
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if value, err := strconv.ParseFloat(text, 64); err == nil && strings.HasPrefix(name, "go_") {
			values[name] = value
		}
	}
	return values
}
