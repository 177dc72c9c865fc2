package api

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
)

// rejectedStartCounts counts the starts that were rejected for their form, by the part of
// the request that was wrong. Their viewers may play without being counted, so that
// none of these is silent.
type rejectedStartCounts struct {
	lines overload.LogSampler

	mu       sync.Mutex
	byMember map[string]int64
}

func (c *rejectedStartCounts) add(member string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byMember == nil {
		c.byMember = map[string]int64{}
	}
	c.byMember[member]++
}

// counts returns the number of rejected starts by member.
func (c *rejectedStartCounts) counts() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.byMember)
}

// countRejectedStart counts and logs a start that was rejected for its form.
func (s *Server) countRejectedStart(rec *recorder, r *http.Request) {
	p := rec.problem
	if p == nil || !isStart(rec, r) {
		return
	}
	switch p.Status {
	case http.StatusNotFound:
		if rec.route != "" { // it names a user or a stream that does not exist
			return
		}
	case problem.Malformed.Status, problem.BodyTooLarge.Status, problem.TargetTooLong.Status, problem.UnsupportedMediaType.Status, problem.Invalid.Status, problem.HeadersTooLarge.Status:
	default:
		return
	}
	member, reason := s.invalidPart(p)
	s.rejectedStarts.add(member)
	if !s.log.Enabled(r.Context(), slog.LevelWarn) {
		return
	}
	kept, ok := s.rejectedStarts.lines.Allow(time.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("member", member), slog.String("reason", reason), slog.Int("status", p.Status), slog.String("user", rec.user),
		slog.String("caller", rec.caller.String()), slog.String("client", rec.client.String()),
	}
	if kept > 0 {
		attrs = append(attrs, slog.Int64("unlogged", kept))
	}
	s.log.LogAttrs(r.Context(), slog.LevelWarn, "start rejected for its form", attrs...)
}

// isStart reports whether a request is a start. One whose path is wrong has no route.
func isStart(rec *recorder, r *http.Request) bool {
	if rec.route != "" {
		return rec.route == openapi.UserPath+"/start" && r.Method == http.MethodPost
	}
	return r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/api/v1/streams/users/") &&
		strings.HasSuffix(r.URL.Path, "/start")
}

// invalidPart names the part of a start that a problem is about: a member of the
// body, a header, or what else there is. There are few such names.
func (s *Server) invalidPart(p *problem.Problem) (member, reason string) {
	if len(p.Errors) == 0 {
		switch p.Status {
		case problem.NotFound.Status, problem.TargetTooLong.Status:
			return "path", p.Detail
		case problem.HeadersTooLarge.Status:
			return "headers", p.Detail
		default:
			return "request", p.Detail
		}
	}
	first := p.Errors[0]
	switch where, rest, _ := strings.Cut(first.Location, "."); {
	case where == "query":
		return "query", first.Message
	case where == "body" && rest == "":
		return "body", first.Message
	case where == "body" && !hasMember(s.schemas, s.schemas.Map()["Start"], rest):
		return "unknown", first.Message
	default:
		return rest, first.Message
	}
}

// hasMember reports whether a schema has a member at a path such as device.name.
func hasMember(schemas huma.Registry, schema *huma.Schema, path string) bool {
	for name := range strings.SplitSeq(path, ".") {
		for schema != nil && schema.Ref != "" {
			schema = schemas.SchemaFromRef(schema.Ref)
		}
		name, _, _ = strings.Cut(name, "[")
		if schema == nil || schema.Properties[name] == nil {
			return false
		}
		schema = schema.Properties[name]
	}
	return true
}

// recordProblem notes the problem that a request is answered with.
func recordProblem(ctx context.Context, p *problem.Problem) *problem.Problem {
	if rec, ok := ctx.Value(recorderKey{}).(*recorder); ok {
		rec.problem = p
	}
	return p
}
