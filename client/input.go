package client

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"unicode/utf8"

	"streamcount/api/apitype"
	"streamcount/lease/userid"
)

// checkUser returns an error for ids that the service rejects.
func checkUser(user string) error {
	if fault := userid.Fault(user); fault != "" {
		return fmt.Errorf("%w: user id %.140q: %s: want %s", ErrInvalid, user, fault, userid.Rule)
	}
	return nil
}

// segment escapes an id as a segment of a path. Unescaped, "." and ".." would change the path.
func segment(id string) string {
	if id == "." || id == ".." {
		return strings.ReplaceAll(id, ".", "%2E")
	}
	return url.PathEscape(id)
}

// cleanStart returns req in the form in which it is sent: labels are made valid UTF-8 and
// truncated to the service's maximum. Ids are not changed. An id that is not valid UTF-8 is an
// error, because JSON would change it.
func cleanStart(req apitype.Start) (apitype.Start, error) {
	ids := []struct{ member, id string }{{"session", req.Session}, {"plan", req.Plan}, {"profile", req.Profile}, {"network", req.Network}}
	for _, id := range req.Replaces {
		ids = append(ids, struct{ member, id string }{"replaces", id})
	}
	for key, value := range req.Labels {
		ids = append(ids, struct{ member, id string }{"labels." + key, value})
	}
	if req.Device != nil {
		d := *req.Device
		d.Name, d.Type = label(d.Name), label(d.Type)
		ids = append(ids, struct{ member, id string }{"device.id", d.ID})
		req.Device = &d
	}
	if req.Content != nil {
		c := *req.Content
		c.Title = label(c.Title)
		ids = append(ids, struct{ member, id string }{"content.id", c.ID}, struct{ member, id string }{"content.type", c.Type})
		for _, label := range c.Labels {
			ids = append(ids, struct{ member, id string }{"content.labels", label})
		}
		req.Content = &c
	}
	for _, i := range ids {
		if !utf8.ValidString(i.id) {
			return req, fmt.Errorf("%w: %s %.200q: want UTF-8", ErrInvalid, i.member, i.id)
		}
	}
	return req, nil
}

func label(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	n := 0
	for at := range text {
		if n == apitype.MaxLabel {
			return text[:at]
		}
		n++
	}
	return text
}

// reportRejection logs err and passes it to Config.OnProblem, if the service has rejected the
// request itself.
func (c *Client) reportRejection(what, user string, err error) {
	p, ok := rejection(err)
	if !ok {
		return
	}
	c.cfg.Log.Warn("the service rejects a "+what, "user", user, "status", p.Problem.Status, "title", p.Problem.Title,
		"detail", p.Problem.Detail, slog.Any("members", p.Problem.Errors))
	if c.cfg.OnProblem != nil {
		c.cfg.OnProblem(p)
	}
}
