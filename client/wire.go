package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"streamcount/api/apitype"
)

// maxAnswer is the maximum number of bytes that are read of an answer. The largest regular
// answer, to a batch of heartbeats that have all ended, is a fifth of it.
const maxAnswer = 1 << 20

// send makes one request, with in as its body unless nil, and decodes the
// answer into out. Unknown fields in the answer are ignored.
func (c *Client) send(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, timeoutError(c.cfg.Timeout))
	defer cancel()
	req, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause // more specific than "context deadline exceeded"
		}
		return err
	}
	// After the body was read, an error of Close has no consequence.
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case len(body) > maxAnswer:
		return fmt.Errorf("%w: longer than %d bytes", errUnreadable, maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return refusal(resp, body)
	}
	return decode(resp, body, out)
}

// A timeoutError means that a request was cancelled after that time.
type timeoutError time.Duration

func (e timeoutError) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

func (e timeoutError) Unwrap() error { return context.DeadlineExceeded }

func (c *Client) request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%w: encode request: %w", ErrInvalid, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch {
	case c.cfg.Credential != "":
		req.Header.Set("Authorization", "Bearer "+c.cfg.Credential)
	case c.userinfo != nil:
		password, _ := c.userinfo.Password()
		req.SetBasicAuth(c.userinfo.Username(), password)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

func decode(resp *http.Response, body []byte, out any) error {
	if got := mediaType(resp); got != "application/json" {
		return fmt.Errorf("%w: content type %q: is this a streamcount server?", errUnreadable, got)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return nil
}

func mediaType(resp *http.Response) string {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// refusal returns the error of an answer other than 200.
func refusal(resp *http.Response, body []byte) error {
	after := parseRetryAfter(resp.Header.Get("Retry-After"))
	p := apitype.Problem{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	if mediaType(resp) == "application/problem+json" {
		var said apitype.Problem
		if err := json.Unmarshal(body, &said); err == nil {
			p = said
			p.Status = resp.StatusCode // the status of HTTP, if the body has another
		}
	}
	switch {
	case p.Status == http.StatusForbidden && (p.Title == limitReached || p.Text == limitReached):
		return newLimitError(p, after)
	case p.Status == http.StatusGone && (p.Type != "" || p.Reason != ""): // otherwise it is the page of a proxy
		ended := &EndedError{Reason: p.Reason, By: p.By}
		if ended.Reason == "" {
			ended.Reason = ReasonEnded
		}
		return ended
	}
	if to, err := resp.Location(); err == nil && resp.StatusCode < http.StatusBadRequest {
		p.Detail = fmt.Sprintf("it redirects to %s://%s, and redirects are not followed: use that address as the server",
			to.Scheme, to.Host)
	}
	return &ProblemError{Problem: p, RetryAfter: after}
}

// limitReached is the title of the only refusal that means too many streams.
const limitReached = "Maximum number of streams reached"

// newLimitError returns the error of a start that was refused at the limit.
func newLimitError(p apitype.Problem, after time.Duration) *LimitError {
	e := &LimitError{
		Limit: len(p.Active), Streams: len(p.Active), Active: p.Active, Limits: p.Limits, Detail: p.Detail,
		RetryAfter: after, EvictAfter: seconds(p.EvictAfterSeconds),
	}
	if p.Limit != nil {
		e.Limit = *p.Limit
	}
	if p.Streams != nil {
		e.Streams = *p.Streams
	}
	e.Counted = e.Streams
	if p.Counted != nil {
		e.Counted = *p.Counted
	} else if len(p.Limits) > 0 {
		e.Counted = p.Limits[0].Counted
	}
	return e
}

// seconds returns n seconds, at least 0 and at most maxRetryAfter.
func seconds(n int) time.Duration {
	return time.Duration(min(max(n, 0), int(maxRetryAfter/time.Second))) * time.Second
}

// maxRetryAfter prevents that an absurd header overflows a duration.
const maxRetryAfter = 24 * time.Hour

// parseRetryAfter parses both forms of the header; it returns 0 without a valid header.
func parseRetryAfter(h string) time.Duration {
	if n, err := strconv.Atoi(h); err == nil {
		return seconds(n)
	}
	at, err := http.ParseTime(h)
	if err != nil {
		return 0
	}
	return min(max(time.Until(at), 0), maxRetryAfter)
}
