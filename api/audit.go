package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"streamcount/access"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/denials"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/problem"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
	"streamcount/lease/streamid"
)

// The audit log has a line for each act that ends streams or changes rules, for starts
// that were refused at the limit, and for failed authentication: what was done, to which
// user, by which caller, from which address. Lines have the message "audit". They have
// no credential, and the handles of streams in place of their ids.

// audit writes one line. what is a short name of the act.
func (s *Server) audit(ctx context.Context, what, user string, more ...slog.Attr) {
	if s.auditLog == nil || !s.auditLog.Enabled(ctx, slog.LevelInfo) {
		return
	}
	line := slog.NewRecord(time.Now(), slog.LevelInfo, "audit", 0) // no line contains the caller's code
	line.AddAttrs(slog.String("what", what), slog.String("user", user), slog.String("caller", callerOf(ctx).String()))
	if rec, ok := ctx.Value(recorderKey{}).(*recorder); ok {
		if rec.client.IsValid() {
			line.AddAttrs(slog.String("client", rec.client.String()))
		}
		if id := s.requestID(rec.request); id != "" {
			line.AddAttrs(slog.String("request", id))
		}
	}
	line.AddAttrs(more...)
	_ = s.auditLog.Handler().Handle(ctx, line) // as slog.Logger does: the sink reports its errors
}

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._:+/=-]{1,128}$`)

// requestID is the X-Request-Id that a trusted proxy gave a request, or "".
func (s *Server) requestID(r *http.Request) string {
	if r == nil || len(r.Header["X-Request-Id"]) != 1 || !s.ingress.IsProxy(ingress.PeerAddr(r.RemoteAddr)) {
		return ""
	}
	if id := r.Header["X-Request-Id"][0]; requestIDPattern.MatchString(id) {
		return id
	}
	return ""
}

// checkAuditSpace rejects an action that the audit log has no room to record, because the log
// cannot be written, or not fast enough. Heartbeats are never rejected. Starts are rejected
// last, because only some of them end another stream.
func (s *Server) checkAuditSpace(traits openapi.Traits) *problem.Problem {
	switch traits.Action {
	case access.StartStream, access.StopStream, access.EndStreams, access.WriteRules, access.EraseData, access.EndAnyStreams:
	default:
		return nil
	}
	if traits.Heartbeat || s.cfg.AuditFull == nil || !s.cfg.AuditFull(traits.Action) {
		return nil
	}
	return problem.Unavailable.New("The node cannot write its audit log, so it starts, ends and changes nothing. "+problem.RetryAdvice).WithHeader("Retry-After", problem.RetryAfterJittered())
}

// outcomeAttrs returns the attributes of an action whose outcome is unknown. ok is false for
// an action that was not carried out.
func outcomeAttrs(err error) (attrs []slog.Attr, ok bool) {
	switch {
	case err == nil:
		return nil, true
	case convert.Problem(err).Status >= http.StatusInternalServerError:
		return []slog.Attr{slog.String("outcome", "unknown")}, true
	}
	return nil, false
}

// auditStart records a start that was refused at the limit, or the streams that an admitted
// start has ended.
func (s *Server) auditStart(ctx context.Context, user string, req lease.Request, started lease.Started, err error) {
	if full, ok := errors.AsType[*lease.LimitError](err); ok {
		unlogged, ok := s.refusedLines.Allow(time.Now())
		if !ok {
			return
		}
		attrs := []slog.Attr{slog.Int("limit", full.Limit), slog.Int("streams", len(full.Active))}
		if names := full.LimitNames(); len(names) > 0 {
			attrs = append(attrs, slog.Any("limits", names))
		}
		if full.NoEviction != "" {
			attrs = append(attrs, slog.String("notEvictedReason", string(full.NoEviction)))
		}
		if unlogged > 0 {
			attrs = append(attrs, slog.Int64("unlogged", unlogged))
		}
		s.audit(ctx, "refuse", user, attrs...)
		return
	}
	for _, e := range started.Ended {
		what := "evict"
		switch {
		case e.Reason == policy.ReasonReplaced && (req.Session == "" || e.Stream.Session != req.Session):
			what = "replace" // named by the start
		case e.Reason != policy.ReasonEvicted:
			continue // the session continues under a new id
		}
		s.audit(ctx, what, user, slog.String("stream", streamid.Handle(e.Stream.ID)),
			slog.String("device", e.Stream.Device.Name), slog.String("for", streamid.Handle(started.Stream.ID)))
	}
}

// auditStop records the stop of a stream, "" for an id that is not known.
func (s *Server) auditStop(ctx context.Context, what, user, id string, err error) {
	attrs, ok := outcomeAttrs(err)
	if !ok || s.auditLog == nil {
		return
	}
	if id != "" {
		attrs = append(attrs, slog.String("stream", streamid.Handle(id)))
	}
	s.audit(ctx, what, user, attrs...)
}

// auditPlan records the change of a plan, with the names of the further limits that differ.
func (s *Server) auditPlan(ctx context.Context, what string, c rules.PlanChange, err error) {
	var more []slog.Attr
	if changes := c.Limits(); len(changes) > 0 && err == nil && !c.Unreadable {
		more = append(more, slog.Any("limits", changes))
	}
	s.auditRule(ctx, what, "", c.Name, convertOptional(c.Old, convert.PlanRule), convertOptional(c.New, convert.PlanRule), err, more...)
}

// auditOverride records the change of what is set for a user, with the names of the limits
// that differ.
func (s *Server) auditOverride(ctx context.Context, what string, c rules.OverrideChange, err error) {
	var more []slog.Attr
	if changes := c.Limits(); len(changes) > 0 && err == nil && !c.Unreadable {
		more = append(more, slog.Any("limits", changes))
	}
	s.auditRule(ctx, what, c.User, "", convertOptional(c.Old, convert.LimitRule), convertOptional(c.New, convert.LimitRule), err, more...)
}

// auditRule records the change of a rule: that of a user, or of a plan.
func (s *Server) auditRule(ctx context.Context, what, user, plan string, before, after any, err error, more ...slog.Attr) {
	attrs, ok := outcomeAttrs(err)
	if !ok {
		return
	}
	if plan != "" {
		attrs = append(attrs, slog.String("plan", plan))
	}
	if err == nil { // else what was there before is not known either
		attrs = append(attrs, slog.Any("old", before))
	}
	s.audit(ctx, what, user, append(append(attrs, slog.Any("new", after)), more...)...)
}

// auditDenial counts a call that authentication or the caller's rights refused, and records
// some of them.
func (s *Server) auditDenial(ctx context.Context, rec *recorder, reason denials.Reason) {
	unlogged, ok := s.denials.Add(rec.client, reason, time.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{slog.String("reason", string(reason)), slog.String("method", rec.request.Method), slog.String("route", rec.route)}
	if unlogged > 0 {
		attrs = append(attrs, slog.Int64("unlogged", unlogged))
	}
	s.audit(withRecorder(ctx, rec), "deny", rec.user, attrs...)
}
