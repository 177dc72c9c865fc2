package convert

import (
	"encoding/json"
	"log/slog"
	"time"

	"streamcount/api/apitype"
	"streamcount/lease/userdata"
)

// UserData returns the answer to an export.
func UserData(d userdata.Data) *apitype.UserData {
	out := &apitype.UserData{
		UserID: d.User, Streams: []apitype.StoredStream{}, Cooldowns: []apitype.StoredCooldown{},
		Override: stored(d.Override), Departed: stored(d.Departed), Arrived: d.Arrived,
	}
	for _, s := range d.Streams {
		out.Streams = append(out.Streams, storedStream(s))
	}
	for _, c := range d.Cooldowns {
		out.Cooldowns = append(out.Cooldowns, apitype.StoredCooldown{Of: c.Of, Hash: c.Hash, ExpiresAt: apitype.At(c.ExpiresAt)})
	}
	for _, k := range d.Other {
		out.Other = append(out.Other, apitype.StoredKey{Key: k.Key, Value: string(k.Value)})
	}
	return out
}

// stored returns a stored value: its JSON, or a text if it is not JSON.
func stored(value []byte) any {
	switch {
	case value == nil:
		return nil
	case json.Valid(value):
		return json.RawMessage(value)
	}
	return string(value)
}

func storedStream(s userdata.Stream) apitype.StoredStream {
	out := apitype.StoredStream{
		ID: s.ID, StartedAt: apitype.At(s.StartedAt), ExpiresAt: apitype.At(s.ExpiresAt), TTLSeconds: int(s.TTL / time.Second),
		Region: s.Region, Session: s.Session, Via: s.Via, Plan: s.Plan, Limit: s.Limit,
		Profile: s.Attributes.Profile, Network: s.Attributes.Network, Labels: s.Attributes.Labels, Priority: s.Attributes.Priority,
	}
	if d := s.Device; d != (userdata.Device{}) {
		out.Device = &apitype.Device{ID: d.ID, Name: d.Name, Type: d.Type}
	}
	content := apitype.Content{
		ID: s.Content.ID, Title: s.Content.Title, Type: s.Attributes.ContentType, Labels: s.Attributes.ContentLabels,
	}
	if content.ID+content.Title+content.Type != "" || len(content.Labels) > 0 {
		out.Content = &content
	}
	return out
}

// ErasedData returns the answer to an erasure.
func ErasedData(user string, e userdata.Erased) *apitype.ErasedData {
	return &apitype.ErasedData{
		UserID: user, Streams: e.Streams, Override: e.Override, Cooldowns: e.Cooldowns, Other: e.Other, MarkKept: e.MarkKept,
	}
}

// ErasedAttrs returns the attributes of an erasure in the audit log.
func ErasedAttrs(e userdata.Erased) []slog.Attr {
	return []slog.Attr{
		slog.Int("streams", e.Streams), slog.Bool("override", e.Override), slog.Int("cooldowns", e.Cooldowns), slog.Int("other", e.Other),
	}
}
