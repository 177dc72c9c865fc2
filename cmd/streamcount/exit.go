package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"streamcount/api/apitype"
	"streamcount/client"
)

// The exit codes. longHelp documents them.
const (
	exitOK = iota
	exitError
	exitUsage
	exitLimit
	exitGone
)

func exitCode(err error) int {
	p, isProblem := errors.AsType[*client.ProblemError](err)
	switch {
	case isUsage(err), errors.Is(err, client.ErrInvalid):
		return exitUsage
	case errors.Is(err, client.ErrLimit):
		return exitLimit
	case errors.Is(err, client.ErrEnded):
		return exitGone
	case !isProblem || p.Problem.Type == "": // what is not the service's word has no meaning here
		return exitError
	case p.Problem.Status == http.StatusNotFound:
		return exitGone
	case p.Problem.Status == http.StatusUnprocessableEntity, p.Problem.Status == http.StatusBadRequest:
		return exitUsage
	}
	return exitError
}

// explain says what was wrong and what to do.
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
	server := redacted(a.server)
	switch {
	case isProblem && p.Problem.Type == "":
		return fmt.Sprintf("%v: %s does not answer like a streamcount server: check --server", err, server)
	case isProblem && p.Problem.Status == http.StatusServiceUnavailable:
		return fmt.Sprintf("%v: try again, or see why at %s/readyz", err, server)
	case isProblem && strings.HasSuffix(p.Problem.Type, "/override-not-found") && p.Problem.Limit != nil:
		return fmt.Sprintf("the user has no limit or plan of their own; the limit in force is %d", *p.Problem.Limit)
	case isProblem:
		return err.Error()
	case errors.Is(err, syscall.ECONNREFUSED) && a.server != "":
		return fmt.Sprintf("no server answers at %s: is it running? "+
			"Start one with \"streamcount serve\", or name another with --server", server)
	case isDNS && a.server != "":
		return fmt.Sprintf("no server at %s: there is no host %q: check --server", server, dns.Name)
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case isNetwork && a.server != "":
		return fmt.Sprintf("%v: is a server running at %s?", err, server)
	}
	return err.Error()
}

// redacted is an address without the password in it.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the server"
	}
	return u.Redacted()
}

func explainLimit(full *client.LimitError) string {
	if full.Limit == 0 {
		return "refused: the limit is 0 streams"
	}
	text := fmt.Sprintf("limit reached: %d of %d streams are running; stop one with "+
		"\"streamcount stop USER ID\", or end the oldest with --on-limit replace-oldest",
		full.Streams, full.Limit)
	if full.EvictAfter > 0 {
		text = fmt.Sprintf("limit reached: %d of %d streams are running, and this session or device was itself ended by "+
			"another start, so it may end one only in %v", full.Streams, full.Limit, full.EvictAfter)
	}
	if full.RetryAfter > 0 {
		text += fmt.Sprintf("; the first could lapse in %v", full.RetryAfter)
	}
	return text
}

func explainEnded(ended *client.EndedError) string {
	text := "the stream has ended: " + ended.Reason
	switch ended.Reason {
	case client.ReasonExpired:
		text += ", because no heartbeat came in time"
	case client.ReasonEnded:
		text = "the stream has ended, or there was none with this id"
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

// printProblem writes what the service said as JSON, if it said anything.
func (a *app) printProblem(err error) {
	var p apitype.Problem
	full, isLimit := errors.AsType[*client.LimitError](err)
	ended, isEnded := errors.AsType[*client.EndedError](err)
	said, isProblem := errors.AsType[*client.ProblemError](err)
	switch {
	case isLimit:
		p = apitype.Problem{Type: "/problems/limit-reached", Title: "Maximum number of streams reached",
			Status: http.StatusForbidden, Limit: &full.Limit, Streams: &full.Streams, Active: full.Active}
	case isEnded:
		p = apitype.Problem{Type: "/problems/stream-ended", Title: "Stream has ended",
			Status: http.StatusGone, Reason: ended.Reason, By: ended.By}
	case isProblem:
		p = said.Problem
	default:
		return
	}
	p.Text = p.Title
	_ = a.printJSON(p) // the error itself follows on stderr
}
