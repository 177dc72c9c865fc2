// Package convert converts between the values and errors of package lease and the bodies and
// problems of the HTTP API.
package convert

import (
	"strings"
	"time"
	"unicode"

	"streamcount/api/apitype"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// Stream returns a stream with its id.
func Stream(s lease.Stream) apitype.Stream {
	ttl := int(s.TTL / time.Second)
	out := apitype.Stream{
		ID:               s.ID,
		StartedAt:        apitype.At(s.StartedAt),
		ExpiresAt:        rebase(s.ExpiresAt),
		TTLSeconds:       ttl,
		HeartbeatSeconds: max(1, ttl/3),
		Region:           s.Region,
		Session:          s.Session,
		Via:              s.Via,
		Device:           device(s.Device),
		Content:          content(s),
		Degraded:         s.Degraded,
	}
	if as := s.Attributes; as != nil {
		out.Profile, out.Labels, out.Priority = as.Profile, as.Labels, as.Priority
	}
	return out
}

// rebase returns a future time by the current wall clock. The clock may have been set after t
// was computed; the monotonic part of t still has the right time until t.
func rebase(t time.Time) *apitype.Time {
	if t.IsZero() {
		return nil
	}
	now := time.Now()
	return apitype.At(now.Add(t.Sub(now)))
}

// Streams returns the streams of a list.
func Streams(list []lease.Stream) []apitype.Stream {
	out := make([]apitype.Stream, len(list))
	for i, s := range list {
		out[i] = Stream(s)
	}
	return out
}

// User returns the usage of a user.
func User(u lease.Usage) apitype.User {
	return apitype.User{
		UserID: u.User, Streams: u.Count, Counted: counted(u.Counted, u.Count), Limit: u.Limit,
		Active: Streams(u.Active),
	}
}

// counted returns what streams count for, unless it is their number.
func counted(n, streams int) *int {
	if n == streams || n == 0 {
		return nil
	}
	return &n
}

func device(d lease.Device) *apitype.Device {
	if d == (lease.Device{}) {
		return nil
	}
	return &apitype.Device{ID: d.ID, Name: d.Name, Type: d.Type}
}

func content(s lease.Stream) *apitype.Content {
	c := apitype.Content{ID: s.Content.ID, Title: s.Content.Title}
	if as := s.Attributes; as != nil {
		c.Type, c.Labels = as.ContentType, as.ContentLabels
	}
	if c.ID == "" && c.Title == "" && c.Type == "" && len(c.Labels) == 0 {
		return nil
	}
	return &c
}

// EndedBy returns the stream that took the place of an ended one; nil if there is none.
func EndedBy(b *lease.Replacement) *apitype.By {
	if b == nil {
		return nil
	}
	return &apitype.By{Device: device(b.Device), StartedAt: apitype.At(b.StartedAt)}
}

// AddRefusal adds the limits that reject a start, and the streams that count for them, to a
// problem.
func AddRefusal(p *apitype.Problem, e *lease.LimitError) {
	held := len(e.Active)
	p.Limit, p.Streams, p.Active = &e.Limit, &held, Streams(e.Active)
	p.Counted = counted(e.Counted, held)
	for _, l := range e.Limits {
		p.Limits = append(p.Limits, RefusingLimit(l))
	}
	if len(e.Blocking) != held {
		return
	}
	for i, b := range e.Blocking {
		p.Active[i].Blocks, p.Active[i].Enough = append([]string{}, b.Limits...), &b.Enough
	}
}

// RefusingLimit returns a limit that rejects a start.
func RefusingLimit(l policy.RefusingLimit) apitype.RefusingLimit {
	return apitype.RefusingLimit{Name: l.Name, Limit: l.Limit, Counted: l.Counted, Count: string(l.Count), Message: l.Message}
}

// Start returns the request of a start with that body. Without a body it is a plain stream.
func Start(b *apitype.Start) lease.Request {
	if b == nil {
		return lease.Request{}
	}
	r := lease.Request{
		Session: b.Session, Replaces: b.Replaces, OnLimit: policy.OnLimit(b.OnLimit), Plan: b.Plan,
		Attributes: policy.StartAttributes{Profile: b.Profile, Network: b.Network, Labels: b.Labels, Priority: b.Priority},
	}
	if d := b.Device; d != nil {
		r.Device = lease.Device{ID: d.ID, Name: cleanLabel(d.Name), Type: cleanLabel(d.Type)}
	}
	if c := b.Content; c != nil {
		r.Content = lease.Content{ID: c.ID, Title: cleanLabel(c.Title)}
		r.Attributes.ContentType, r.Attributes.ContentLabels = c.Type, c.Labels
	}
	return r
}

// cleanLabel makes a text for people fit: each control character becomes a space, and what
// is longer than apitype.MaxLabel is cut. A start is never refused for a label, because
// its player would then play without being counted.
func cleanLabel(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	n := 0
	for i := range text {
		if n == apitype.MaxLabel {
			return text[:i]
		}
		n++
	}
	return text
}
