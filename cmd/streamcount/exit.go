package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"streamcount/api/apitype"
	"streamcount/client"
	"streamcount/internal/config"
)

// The exit codes. longHelp documents them.
const (
	exitOK = iota
	exitError
	exitUsage
	exitLimit
	exitNotFound
)

func exitCode(err error) int {
	p, isProblem := errors.AsType[*client.ProblemError](err)
	switch {
	case isUsage(err), errors.Is(err, client.ErrInvalid):
		return exitUsage
	case errors.Is(err, client.ErrLimit):
		return exitLimit
	case errors.Is(err, client.ErrEnded):
		return exitNotFound
	case !isProblem || p.Problem.Type == "": // the response does not come from the service
		return exitError
	case p.Problem.Status == http.StatusNotFound:
		return exitNotFound
	case p.Problem.Status == http.StatusUnprocessableEntity, p.Problem.Status == http.StatusBadRequest:
		return exitUsage
	}
	return exitError
}

// explain returns a message for err with a hint for the user.
func (a *app) explain(err error) string {
	if full, ok := errors.AsType[*client.LimitError](err); ok {
		return explainLimit(full)
	}
	if ended, ok := errors.AsType[*client.EndedError](err); ok {
		return explainEnded(ended)
	}
	p, isProblem := errors.AsType[*client.ProblemError](err)
	_, isNetwork := errors.AsType[net.Error](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	server := config.RedactServer(a.server)
	switch {
	case isProblem && p.Problem.Type == "":
		return fmt.Sprintf("%v: %s is not a streamcount server: check --server", err, server)
	case isProblem && p.Problem.Status == http.StatusServiceUnavailable:
		return fmt.Sprintf("%v: try again, or see the reason at %s/readyz", err, server)
	case isProblem && strings.HasSuffix(p.Problem.Type, "/override-not-found") && p.Problem.Limit != nil:
		return fmt.Sprintf("no limit or plan is set for the user; the effective limit is %d", *p.Problem.Limit)
	case isProblem:
		return err.Error()
	case errors.Is(err, syscall.ECONNREFUSED) && a.server != "":
		return fmt.Sprintf("connection refused by %s: start a server with \"streamcount serve\", "+
			"or pass the address of another server with --server", server)
	case isDNS && a.server != "":
		return fmt.Sprintf("cannot resolve the host %[2]q of %[1]s: check --server", server, dns.Name)
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case isNetwork && a.server != "":
		return fmt.Sprintf("%v: check that a server is running at %s", err, server)
	}
	return err.Error()
}

func explainLimit(full *client.LimitError) string {
	switch {
	case len(full.Limits) > 0:
		return explainLimits(full)
	case full.Limit == 0:
		return "start rejected: the limit of the user is 0 streams"
	}
	text := fmt.Sprintf("limit reached: %d of %d streams are active; stop one with "+
		"\"streamcount stop USER ID\", or replace the oldest with --on-limit replace-oldest",
		full.Streams, full.Limit)
	if full.EvictAfter > 0 {
		text = fmt.Sprintf("limit reached: %d of %d streams are active; this session or device was evicted and "+
			"may evict others only in %v", full.Streams, full.Limit, full.EvictAfter)
	}
	if full.RetryAfter > 0 {
		text += fmt.Sprintf("; the first one could expire in %v", full.RetryAfter)
	}
	return text
}

// explainLimits explains the refusal by a plan with several limits: its message, the limits,
// and which streams have to end.
func explainLimits(full *client.LimitError) string {
	text, forbidden := "limit reached", false
	if m := full.Message(); m != "" {
		text += ": " + m
	}
	var limits []string
	for _, l := range full.Limits {
		limits = append(limits, fmt.Sprintf("%s, %d of %d", l.Name, l.Counted, l.Limit))
		forbidden = forbidden || l.Limit == 0
	}
	text += " (" + strings.Join(limits, "; ") + ")"
	if full.EvictAfter > 0 {
		text += fmt.Sprintf("; this session or device was evicted and may evict others only in %v", full.EvictAfter)
	}
	enough := full.Enough()
	switch {
	case forbidden:
		return text + "; the plan does not allow such a stream"
	case len(enough) == 0:
		return text + "; to start in place of others, repeat --replaces ID, with a stream of each limit"
	case len(enough) == 1:
		return text + "; to start in place of the stream that blocks it, add --replaces " + enough[0].ID
	}
	return text + "; to start in place of another stream, add --replaces ID, with a stream whose end is enough"
}

func explainEnded(ended *client.EndedError) string {
	text := "the stream has ended: " + ended.Reason
	switch ended.Reason {
	case client.ReasonExpired:
		text += " (no heartbeat in time)"
	case client.ReasonEnded:
		text = "the stream has ended, or its id is unknown"
	}
	if by := ended.By; by != nil {
		if by.Device != nil && by.Device.Name != "" {
			text += fmt.Sprintf(" by %q", by.Device.Name)
		}
		if by.StartedAt != nil {
			text += " at " + by.StartedAt.Local().Format(time.TimeOnly)
		}
	}
	if ended.Cause != nil {
		text += fmt.Sprintf(" (%v)", ended.Cause)
	}
	return text + "; start a new one with \"streamcount start USER\""
}

// printProblem prints the problem that the service returned as JSON, if err contains one.
func (a *app) printProblem(err error) {
	var p apitype.Problem
	full, isLimit := errors.AsType[*client.LimitError](err)
	ended, isEnded := errors.AsType[*client.EndedError](err)
	returned, isProblem := errors.AsType[*client.ProblemError](err)
	switch {
	case isLimit:
		p = apitype.Problem{Type: "/problems/limit-reached", Title: "Maximum number of streams reached",
			Status: http.StatusForbidden, Limit: &full.Limit, Streams: &full.Streams, Active: full.Active, Limits: full.Limits}
		if len(full.Limits) > 0 {
			p.Detail, p.Counted = full.Detail, &full.Counted
		}
	case isEnded:
		p = apitype.Problem{Type: "/problems/stream-ended", Title: "Stream has ended",
			Status: http.StatusGone, Reason: ended.Reason, By: ended.By}
	case isProblem:
		p = returned.Problem
	default:
		return
	}
	p.Text = p.Title
	_ = a.printJSON(p) // err is printed to stderr next
}
