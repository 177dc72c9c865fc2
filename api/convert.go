package api

import (
	"time"

	"streamcount/api/apitype"
	"streamcount/lease"
)

func stream(s lease.Stream) apitype.Stream {
	ttl := int(s.TTL / time.Second)
	return apitype.Stream{
		ID:               s.ID,
		StartedAt:        apitype.At(s.StartedAt),
		ExpiresAt:        asOfNow(s.ExpiresAt),
		TTLSeconds:       ttl,
		HeartbeatSeconds: max(1, ttl/3),
		Region:           s.Region,
		Session:          s.Session,
		Device:           device(s.Device),
		Content:          content(s.Content),
		Degraded:         s.Degraded,
	}
}

// asOfNow tells a time to come by the wall clock as that goes now: it may have been
// set since t was reckoned, which then still says right how long it is until t.
func asOfNow(t time.Time) *apitype.Time {
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
		UserID: u.User, Streams: u.Count, Counted: counted(u.Counted, u.Count), Limit: u.Limit,
		Active: streams(u.Active),
	}
}

// counted is what streams count for, where that is not their number.
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

func content(c lease.Content) *apitype.Content {
	if c == (lease.Content{}) {
		return nil
	}
	return &apitype.Content{ID: c.ID, Title: c.Title}
}

func by(b *lease.By) *apitype.By {
	if b == nil {
		return nil
	}
	return &apitype.By{Device: device(b.Device), StartedAt: apitype.At(b.StartedAt)}
}

// request reads a start's body; none asks for a plain stream.
func request(b *apitype.Start) lease.Request {
	if b == nil {
		return lease.Request{}
	}
	r := lease.Request{
		Session: b.Session, Replaces: b.Replaces, OnLimit: lease.OnLimit(b.OnLimit), Plan: b.Plan,
	}
	if d := b.Device; d != nil {
		r.Device = lease.Device{ID: d.ID, Name: d.Name, Type: d.Type}
	}
	if c := b.Content; c != nil {
		r.Content = lease.Content{ID: c.ID, Title: c.Title}
	}
	return r
}
