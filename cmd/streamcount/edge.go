package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) edgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "edge",
		Short: "Explain the decisions of the edge",
		Args:  argRange(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.edgeCheckCommand())
	return cmd
}

// edgeCheckFlags are the flags of "edge check".
type edgeCheckFlags struct {
	edge, profile string
	request       apitype.EdgeRequest
	headers       []string
}

func (a *app) edgeCheckCommand() *cobra.Command {
	var f edgeCheckFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Explain what the edge would decide on a request of a player",
		Long: `Explain what a node would decide on a request of a player that a proxy lets it check
(--edge-listen), and why: whether the request counts, who sends it, and what it would
do. Nothing is started, renewed or prolonged.`,
		Example: `  streamcount edge check --profile vod --uri /vod/film/seg1.ts --header "Authorization: Bearer $TOKEN"
  streamcount edge check --profile vod --uri "/vod/film/master.m3u8?token=$TOKEN" --json`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := a.explainEdge(cmd, f)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(x)
			}
			return a.printEdgeExplanation(x)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.edge, "edge", "http://127.0.0.1:3001", "`address` of the node's listener for proxies")
	flags.StringVar(&f.profile, "profile", "", "`name` of the profile")
	flags.StringVar(&f.request.URI, "uri", "", "path and query of the player's request, as a `target`")
	flags.StringVar(&f.request.Method, "method", http.MethodGet, "`method` of the player's request")
	flags.StringArrayVar(&f.headers, "header", nil, "`header` of the player's request, as \"Name: value\"; may be repeated")
	flags.StringVar(&f.request.Client, "client", "", "`address` of the player")
	flags.StringVar(&a.keyFile, "key-file", "", "`file` with an API key of scope edge, if this machine needs one")
	flags.BoolVar(&a.plaintext, "plaintext-key", false, "send the key to other machines over http://, where it can be read on the network")
	a.addJSONFlag(cmd)
	return cmd
}

const edgeTimeout = 10 * time.Second

// explainEdge sends the request of the flags to a node.
func (a *app) explainEdge(cmd *cobra.Command, f edgeCheckFlags) (x apitype.EdgeExplanation, err error) {
	if err := f.check(); err != nil {
		return x, usageError{err}
	}
	key, err := a.credential()
	if err != nil {
		return x, err
	}
	base, err := a.edgeURL(cmd, f.edge, key)
	if err != nil {
		return x, err
	}
	f.request.Header = map[string][]string{}
	for _, header := range f.headers {
		name, value, ok := strings.Cut(header, ":")
		if !ok {
			return x, usageError{errors.New("a header has no colon: want \"Name: value\"")} // without the header, which may be secret
		}
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		f.request.Header[name] = append(f.request.Header[name], strings.TrimSpace(value))
	}
	body, err := json.Marshal(f.request)
	if err != nil {
		return x, err
	}
	call, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, base.JoinPath("edge/v1", url.PathEscape(f.profile), "explain").String(),
		bytes.NewReader(body))
	if err != nil {
		return x, usageError{err}
	}
	if key != "" {
		call.Header.Set("X-Streamcount-Key", key)
	}
	caller := &http.Client{
		Timeout: edgeTimeout,
		// net/http would send X-Streamcount-Key and the player's token to any host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := caller.Do(call)
	if err != nil {
		return x, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	const maxBody = 1 << 20
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return x, err
	}
	if resp.StatusCode != http.StatusOK {
		var p apitype.Problem
		if json.Unmarshal(answer, &p) != nil || p.Title == "" {
			return x, fmt.Errorf("%s answers %s: is it the address of edge-listen?", base.Redacted(), resp.Status)
		}
		return x, fmt.Errorf("%s: %s", p.Title, p.Detail)
	}
	if json.Unmarshal(answer, &x) != nil || x.Decision == "" {
		return apitype.EdgeExplanation{}, fmt.Errorf("%s does not explain decisions: is it the address of edge-listen?", base.Redacted())
	}
	return x, nil
}

// check returns an error unless the flags describe a request of a player.
func (f edgeCheckFlags) check() error {
	if f.profile == "" || f.request.URI == "" {
		return errors.New("want --profile and --uri")
	}
	if f.request.Client != "" {
		if _, err := netip.ParseAddr(f.request.Client); err != nil {
			return fmt.Errorf("client %q: want an IP address", f.request.Client)
		}
	}
	return nil
}

// edgeURL returns the URL of a listener for proxies, or an error unless key may be sent to it.
func (a *app) edgeURL(cmd *cobra.Command, edge, key string) (*url.URL, error) {
	if err := a.resolve(cmd, "plaintext-key"); err != nil {
		return nil, err
	}
	// The rules are those for the server of other commands.
	_, err := client.New(client.Config{Server: edge, Credential: key, PlaintextCredential: a.plaintext})
	switch {
	case errors.Is(err, client.ErrPlaintext):
		return nil, usageError{fmt.Errorf("--edge: %w, or add --plaintext-key", err)}
	case err != nil:
		return nil, usageError{fmt.Errorf("--edge: %w", err)}
	}
	return url.Parse(edge)
}

func (a *app) printEdgeExplanation(x apitype.EdgeExplanation) error {
	rows := [][]string{{"decision", fmt.Sprintf("%s (%d, %s)", x.Decision, x.Status, x.Reason)}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("detail", x.Detail)
	add("request", x.Counts)
	if x.Entry {
		add("entry", "yes: the viewer begins to play")
	}
	add("content", x.Content)
	for _, name := range slices.Sorted(maps.Keys(x.Attributes)) {
		add("attribute", name+": "+x.Attributes[name])
	}
	add("user", x.User)
	add("session", x.Session)
	add("credential", x.Caller)
	if x.Cookie {
		add("cookie", "the answer sets it")
	}
	if s := x.Stream; s != nil {
		text := "running"
		if s.StartedAt != nil {
			text += " since " + s.StartedAt.UTC().Format(time.RFC3339)
		}
		if s.Content != nil {
			text += ", content " + s.Content.ID
		}
		add("stream", text)
	}
	add("would", x.Would)
	if x.Streams != nil && x.Limit != nil {
		add("streams", fmt.Sprintf("%d of %d", *x.Streams, *x.Limit))
	}
	if x.Observe {
		add("observe", "yes: the profile refuses nothing, and the request is allowed in any case")
	}
	if x.Degraded {
		add("degraded", "yes: the node's data may be out of date")
	}
	for _, row := range rows {
		if err := a.printf("%-12s%s\n", row[0], printable(row[1])); err != nil {
			return err
		}
	}
	return nil
}
