package profile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// check completes the profile, and returns an error if members are missing or do not fit
// together.
func (p *Profile) check() error {
	switch {
	case len(p.templates) == 0:
		return errors.New("paths: want at least one, such as /vod/{content}/{file...}")
	case len(p.user) == 0:
		return errors.New("user: want at least one source of the viewer, such as bearer, query:token or header:X-User")
	case len(p.sessions) == 0:
		return errors.New("session: want at least one source, such as derive")
	case p.Change == Split && p.contentID == source{}:
		return errors.New("change: split needs the content: name {content} in paths, or set content")
	}
	if err := p.attributes.check(); err != nil {
		return err
	}
	all := p.optionalSources()
	for _, list := range all {
		for _, s := range list {
			if s.place == inClaim {
				p.claims = append(p.claims, s.name)
			}
		}
	}
	slices.Sort(p.claims)
	p.claims = slices.Compact(p.claims)
	all["user"], all["session"] = p.user, p.sessions
	for member, list := range all {
		for _, s := range list {
			if s.place == inPath && !p.hasVariable(s.name) {
				return fmt.Errorf("%s: %s: no path has {%s}", member, s, s.name)
			}
		}
	}
	if p.Change == Split && p.contentID.place == inPath {
		for _, t := range p.templates {
			if !t.has(p.contentID.name) {
				return fmt.Errorf("change: split needs {%s} in every path, or a viewer would have a further stream for the other files", p.contentID.name)
			}
		}
	}
	if i := slices.Index(p.sessions, source{inDerive, ""}); i >= 0 && i < len(p.sessions)-1 {
		return fmt.Errorf("session: nothing after derive is ever used: remove %s", p.sessions[i+1])
	}
	if p.cookie != nil {
		own := source{inCookie, p.cookie.name}
		switch {
		case !slices.Contains(p.user, own):
			return fmt.Errorf("cookie: it would never be read: add %s to user", own)
		case slices.Contains(p.sessions, own):
			return fmt.Errorf("session: %s is the cookie of the profile, whose session applies anyway: remove it", own)
		}
	}
	return nil
}

// optionalSources returns the sources of what describes a stream, by the member that has them.
func (p *Profile) optionalSources() map[string][]source {
	all := p.attributes.all()
	all["device"] = append(all["device"], p.deviceID, p.deviceName)
	all["content"] = append(all["content"], p.contentID)
	return all
}

func (p *Profile) hasVariable(name string) bool {
	return slices.ContainsFunc(p.templates, func(t template) bool { return t.has(name) })
}

func (c *cookieConfig) check() error {
	const most = 400 * 24 * time.Hour // browsers keep none for longer
	switch {
	case !tokenName.MatchString(c.name):
		return errors.New("name: want 1 to 64 letters, digits and . _ -")
	case c.path[0] != '/' || strings.ContainsAny(c.path, "; \\") || strings.ContainsFunc(c.path, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("path: want a path that begins with /, in ASCII without spaces and ;")
	case c.maxAge < time.Minute || c.maxAge > most || c.maxAge%time.Second != 0:
		return errors.New("maxAge: want whole seconds, 1m to 9600h")
	case c.insecure && (c.partitioned || c.sameSiteNone()):
		return errors.New("secure: browsers ignore a cookie that is not secure with sameSite none or partitioned: set sameSite to lax or strict")
	}
	host := hasPrefixFold(c.name, "__Host-")
	switch {
	case host && c.path != "/":
		return errors.New("path: browsers ignore a cookie whose name begins with __Host- unless its path is /")
	case c.insecure && (host || hasPrefixFold(c.name, "__Secure-")):
		return errors.New("secure: browsers ignore a cookie of that name that is not secure")
	}
	return nil
}

func hasPrefixFold(text, prefix string) bool {
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

// checkCookies returns an error if a browser would send the cookies of two profiles under one name.
func checkCookies(profiles map[string]*Profile) error {
	var before []*Profile
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		p := profiles[name]
		if p.cookie == nil {
			continue
		}
		for _, o := range before {
			if o.cookie.name == p.cookie.name && (pathContains(o.cookie.path, p.cookie.path) || pathContains(p.cookie.path, o.cookie.path)) {
				return fmt.Errorf("profiles: %s: cookie: %s has a cookie of the same name for the same paths: give each profile its own name",
					p.Name, o.Name)
			}
		}
		before = append(before, p)
	}
	return nil
}

// pathContains reports whether the path of a cookie contains another path.
func pathContains(path, other string) bool {
	return strings.HasPrefix(strings.TrimSuffix(other, "/")+"/", strings.TrimSuffix(path, "/")+"/")
}
