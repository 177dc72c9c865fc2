package convert

import (
	"log/slog"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/lease/bulkend"
	"streamcount/lease/policy"
)

// EndQuery returns the query in the body of a bulk end, or the problem of its conditions.
func EndQuery(b apitype.EndStreams) (bulkend.Query, *problem.Problem) {
	q := bulkend.Query{Where: conditions(b.Where), DryRun: b.DryRun, Max: b.Max}
	if err := policy.CheckWhere(q.Where); err != nil {
		return q, badRule("body", err)
	}
	return q, nil
}

// EndedStreams returns the answer to a bulk end.
func EndedStreams(q bulkend.Query, r bulkend.Result) apitype.EndedStreams {
	out := apitype.EndedStreams{Matched: r.Matched, Ended: r.Ended, Users: r.Users, DryRun: q.DryRun, Complete: r.Complete}
	for _, s := range r.Sample {
		m := apitype.MatchedStream{UserID: s.User, ID: s.ID, StartedAt: apitype.At(s.StartedAt), Region: s.Region}
		if s.ContentID != "" || s.ContentTitle != "" {
			m.Content = &apitype.Content{ID: s.ContentID, Title: s.ContentTitle}
		}
		out.Sample = append(out.Sample, m)
	}
	return out
}

// EndAttrs returns the attributes of a bulk end in the audit log.
func EndAttrs(b apitype.EndStreams, r bulkend.Result) []slog.Attr {
	attrs := []slog.Attr{
		slog.Any("where", b.Where), slog.Int("matched", r.Matched), slog.Int("ended", r.Ended), slog.Int("users", r.Users),
		slog.Bool("complete", r.Complete),
	}
	if b.Max > 0 {
		attrs = append(attrs, slog.Int("max", b.Max))
	}
	return attrs
}
