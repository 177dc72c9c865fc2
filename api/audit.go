package api

import (
	"context"
	"errors"
	"log/slog"

	"streamcount/access"
	"streamcount/lease"
)

// The log has a line for everything that was done to a user against the wish of
// some client, and for every change of the rules: who did what to whom. Lines
// have the message "audit", and never hold a credential.

// audit writes one such line. what is a short name of the deed.
func (s *Server) audit(ctx context.Context, what, user string, more ...slog.Attr) {
	if !s.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := append([]slog.Attr{
		slog.String("what", what), slog.String("user", user), slog.String("caller", callerOf(ctx).String()),
	}, more...)
	s.log.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
}

// auditStart tells of a start that was refused for the limit, and of the streams
// that others ended for one that was admitted.
func (s *Server) auditStart(ctx context.Context, user string, started lease.Started, err error) {
	var full *lease.LimitError
	if errors.As(err, &full) {
		attrs := []slog.Attr{slog.Int("limit", full.Limit), slog.Int("streams", len(full.Active))}
		if full.Kept != "" {
			attrs = append(attrs, slog.String("evictedNobody", string(full.Kept)))
		}
		s.audit(ctx, "refuse", user, attrs...)
		return
	}
	for _, e := range started.Ended {
		if e.Reason == lease.ReasonEvicted {
			s.audit(ctx, "evict", user, slog.String("stream", short(e.Stream.ID)),
				slog.String("device", e.Stream.Device.Name), slog.String("for", short(started.Stream.ID)))
		}
	}
}

// auditStop tells of a stream that an operator ended. Players and their services
// stop what is their own.
func (s *Server) auditStop(ctx context.Context, user, id string) {
	if callerOf(ctx).Kind == access.Operator {
		s.audit(ctx, "stop", user, slog.String("stream", short(id)))
	}
}

// short is enough of a stream id to tell a user's streams apart: whoever has a
// whole one may stop its stream.
func short(id string) string { return id[:min(len(id), 8)] }
