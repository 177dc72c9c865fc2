package api

import (
	"strings"
	"time"
	"unicode"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

func stream(s lease.Stream) apitype.Stream {
	ttl := int(s.TTL / time.Second)
	return apitype.Stream{
		ID:               s.ID,
		StartedAt:        apitype.At(s.StartedAt),
		ExpiresAt:        rebase(s.ExpiresAt),
		TTLSeconds:       ttl,
		HeartbeatSeconds: max(1, ttl/3),
		Region:           s.Region,
		Session:          s.Session,
		Device:           device(s.Device),
		Content:          content(s.Content),
		Degraded:         s.Degraded,
	}
}

// maySeeIDs reports whether a caller gets the ids of streams: an id is enough to stop its
// stream. Others get handles.
func maySeeIDs(c access.Caller) bool {
	return c.Authorize(access.StopStream, c.Name) == access.Allowed
}

// withHandle is a stream for callers who may not act on it.
func withHandle(s apitype.Stream) apitype.Stream {
	s.ID, s.Handle = "", streamid.Handle(s.ID)
	return s
}

// visibleTo gives the streams of list handles in place of ids if c may not see ids.
func visibleTo(c access.Caller, list []apitype.Stream) []apitype.Stream {
	if !maySeeIDs(c) {
		for i := range list {
			list[i] = withHandle(list[i])
		}
	}
	return list
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

func streams(list []lease.Stream) []apitype.Stream {
	out := make([]apitype.Stream, len(list))
	for i, s := range list {
		out[i] = stream(s)
	}
	return out
}

func user(u lease.Usage) apitype.User {
	return apitype.User{
		UserID: u.User, Streams: u.Count, Counted: optionalCount(u.Counted, u.Count), Limit: u.Limit,
		Active: streams(u.Active),
	}
}

// optionalCount is what streams count for, where that is not their number.
func optionalCount(n, streams int) *int {
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

func content(c lease.Content) *apitype.Content {
	if c == (lease.Content{}) {
		return nil
	}
	return &apitype.Content{ID: c.ID, Title: c.Title}
}

func endedBy(b *lease.Replacement) *apitype.By {
	if b == nil {
		return nil
	}
	return &apitype.By{Device: device(b.Device), StartedAt: apitype.At(b.StartedAt)}
}

// startRequest reads a start's body; none asks for a plain stream.
func startRequest(b *apitype.Start) lease.Request {
	if b == nil {
		return lease.Request{}
	}
	r := lease.Request{
		Session: b.Session, OnLimit: policy.OnLimit(b.OnLimit), Plan: b.Plan,
	}
	if b.Replaces != "" {
		r.Replaces = []string{b.Replaces}
	}
	if d := b.Device; d != nil {
		r.Device = lease.Device{ID: d.ID, Name: cleanLabel(d.Name), Type: cleanLabel(d.Type)}
	}
	if c := b.Content; c != nil {
		r.Content = lease.Content{ID: c.ID, Title: cleanLabel(c.Title)}
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
