package profile

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"streamcount/internal/yamlfile"
	"streamcount/lease/policy"
)

var (
	profileName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	extension   = regexp.MustCompile(`^\.?[A-Za-z0-9_-]+$`)
)

// Parse reads the file of edge profiles. The errors name the profile and its member.
func Parse(content []byte) (map[string]*Profile, error) {
	root, err := yamlfile.Read(content)
	if err != nil {
		return nil, fmt.Errorf("not a file of edge profiles: %w", err)
	}
	profiles := map[string]*Profile{}
	err = root.Object(map[string]func(yamlfile.Node) error{
		"profiles": func(n yamlfile.Node) error {
			return n.Each(func(name string, n yamlfile.Node) error {
				if !profileName.MatchString(name) {
					return fmt.Errorf("%.80q: want a name of 1 to 32 letters a to z, digits and -", name)
				}
				p, err := readProfile(name, n)
				profiles[name] = p
				return err
			})
		},
		"sources": func(n yamlfile.Node) error {
			return n.Errorf("hooks of media servers are not supported by this version: remove it")
		},
	})
	switch {
	case err != nil:
		return nil, err
	case len(profiles) == 0:
		return nil, errors.New("profiles: want at least one profile")
	}
	return profiles, checkCookies(profiles)
}

// newProfile returns a profile with the defaults.
func newProfile(name string) *Profile {
	return &Profile{
		Name: name, From: FromOriginal, OnOutage: AllowAll, Change: Move, OnLimit: policy.Deny, Cache: time.Second,
		unmatched:   Passed,
		entries:     []string{"*/master.m3u8", "*/index.m3u8"},
		sessions:    []source{{inClaim, "sid"}, {inClaim, "jti"}, {inQuery, "sid"}, {inDerive, ""}},
		deriveAgent: true,
		deviceID:    source{inClaim, "did"},
		deviceName:  source{inHeader, "User-Agent"},
	}
}

func readProfile(name string, n yamlfile.Node) (*Profile, error) {
	p := newProfile(name)
	err := n.Object(map[string]func(yamlfile.Node) error{
		"from":     choice(&p.From, FromOriginal, FromForwarded, FromRequest),
		"paths":    p.readPaths,
		"other":    words(&p.unmatched, map[string]Kind{"pass": Passed, "deny": Denied}),
		"only":     p.readOnly,
		"entry":    p.readEntry,
		"post":     words(&p.countPost, map[string]bool{"pass": false, "count": true}),
		"user":     sources(&p.user, inBearer, inQuery, inPath, inCookie, inHeader, inBasic),
		"session":  sources(&p.sessions, inClaim, inQuery, inPath, inCookie, inHeader, inDerive),
		"bind":     p.readBind,
		"derive":   p.readDerive,
		"device":   p.readDevice,
		"content":  p.readContent,
		"profile":  oneAttribute(&p.attributes.profile, placesOfAttributes...),
		"labels":   p.readLabels,
		"change":   choice(&p.Change, Move, Split),
		"onLimit":  choice(&p.OnLimit, policy.Deny, policy.ReplaceOldest),
		"onOutage": choice(&p.OnOutage, AllowAll, AllowKnown, DenyAll),
		"cookie":   p.readCookie,
		"cache":    p.readCache,
		"observe":  func(n yamlfile.Node) error { return n.Boolean(&p.Observe) },
	})
	if err != nil {
		return nil, err
	}
	if p.Observe {
		p.OnLimit = policy.Deny
	}
	if p.contentID == (source{}) && p.hasVariable("content") {
		p.contentID = source{inPath, "content"}
	}
	if err := p.check(); err != nil {
		return nil, n.Errorf("%w", err)
	}
	return p, nil
}

// choice decodes one of the values.
func choice[T ~string](into *T, values ...T) func(yamlfile.Node) error {
	all := map[string]T{}
	for _, v := range values {
		all[string(v)] = v
	}
	return words(into, all)
}

// words decodes a word by its meaning.
func words[T any](into *T, meanings map[string]T) func(yamlfile.Node) error {
	return func(n yamlfile.Node) error {
		var text string
		err := n.Text(&text)
		meaning, ok := meanings[text]
		if err != nil || !ok {
			known := make([]string, 0, len(meanings))
			for word := range meanings {
				known = append(known, word)
			}
			slices.Sort(known)
			return n.Wrong(strings.Join(known, " or "))
		}
		*into = meaning
		return nil
	}
}

// sources decodes a list of sources, each at one of the places.
func sources(into *[]source, places ...place) func(yamlfile.Node) error {
	return func(n yamlfile.Node) error {
		*into = nil
		return eachText(n, func(text string) error {
			s, err := parseSource(text, places...)
			*into = append(*into, s)
			return err
		})
	}
}

// eachText calls read for a text, or for each text of a list, which may be empty.
func eachText(n yamlfile.Node, read func(string) error) error {
	if n.Kind() == "a list" {
		if items, err := n.List(); err != nil || len(items) == 0 {
			return err
		}
	}
	var texts []string
	if err := n.Texts(&texts); err != nil {
		return err
	}
	for _, text := range texts {
		if err := read(text); err != nil {
			return n.Errorf("%w", err)
		}
	}
	return nil
}

func (p *Profile) readPaths(n yamlfile.Node) error {
	return eachText(n, func(text string) error {
		t, err := parseTemplate(text)
		if err != nil {
			return fmt.Errorf("%.200q: %w", text, err)
		}
		p.templates = append(p.templates, t)
		return nil
	})
}

func (p *Profile) readOnly(n yamlfile.Node) error {
	return eachText(n, func(text string) error {
		if !extension.MatchString(text) {
			return fmt.Errorf("%.80q: want the extension of a file, such as m3u8", text)
		}
		p.only = append(p.only, strings.ToLower(strings.TrimPrefix(text, ".")))
		return nil
	})
}

func (p *Profile) readEntry(n yamlfile.Node) error {
	p.entries = nil
	return eachText(n, func(text string) error {
		if text[0] != '*' && text[0] != '/' {
			return fmt.Errorf("%.80q: want a pattern of whole paths, such as */master.m3u8", text)
		}
		p.entries = append(p.entries, text)
		return nil
	})
}

func (p *Profile) readBind(n yamlfile.Node) error {
	return eachText(n, func(text string) error {
		switch text {
		case "ua":
			p.bindAgent = true
		case "ip24":
			p.bindNetwork = true
		default:
			return fmt.Errorf("%.80q: want ua or ip24", text)
		}
		return nil
	})
}

func (p *Profile) readDerive(n yamlfile.Node) error {
	p.deriveAgent = false
	credential := false
	err := eachText(n, func(text string) error {
		switch text {
		case "credential":
			credential = true
		case "ua":
			p.deriveAgent = true
		default:
			return fmt.Errorf("%.80q: want credential or ua", text)
		}
		return nil
	})
	if err == nil && !credential {
		return n.Wrong("[credential] or [credential, ua]")
	}
	return err
}

func (p *Profile) readDevice(n yamlfile.Node) error {
	places := []place{inClaim, inQuery, inPath, inCookie, inHeader}
	return n.Object(map[string]func(yamlfile.Node) error{
		"id":   oneSource(&p.deviceID, places...),
		"name": oneSource(&p.deviceName, places...),
		"type": oneAttribute(&p.attributes.deviceType, placesOfAttributes...),
	})
}

func (p *Profile) readContent(n yamlfile.Node) error {
	return n.Object(map[string]func(yamlfile.Node) error{
		"id":     oneSource(&p.contentID, inPath, inQuery),
		"type":   oneAttribute(&p.attributes.contentType, placesOfAttributes...),
		"labels": p.readContentLabels,
	})
}

func oneSource(into *source, places ...place) func(yamlfile.Node) error {
	return func(n yamlfile.Node) error {
		var text string
		err := n.Text(&text)
		if err == nil {
			*into, err = parseSource(text, places...)
			if err != nil {
				return n.Errorf("%w", err)
			}
		}
		return err
	}
}

func (p *Profile) readCookie(n yamlfile.Node) error {
	c := &cookieConfig{path: "/", maxAge: 12 * time.Hour, sameSite: http.SameSiteNoneMode}
	p.cookie = c
	var partitioned *bool
	secure := true
	err := n.Object(map[string]func(yamlfile.Node) error{
		"name":   func(n yamlfile.Node) error { return n.Text(&c.name) },
		"path":   func(n yamlfile.Node) error { return n.Text(&c.path) },
		"maxAge": func(n yamlfile.Node) error { return n.Duration(&c.maxAge) },
		"sameSite": words(&c.sameSite, map[string]http.SameSite{
			"none": http.SameSiteNoneMode, "lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode,
		}),
		"partitioned": func(n yamlfile.Node) error { partitioned = new(bool); return n.Boolean(partitioned) },
		"secure":      func(n yamlfile.Node) error { return n.Boolean(&secure) },
	})
	if err != nil {
		return err
	}
	c.insecure = !secure
	none := c.sameSiteNone()
	c.partitioned = *cmp.Or(partitioned, &none)
	if err := c.check(); err != nil {
		return n.Errorf("%w", err)
	}
	return nil
}

func (p *Profile) readCache(n yamlfile.Node) error {
	const most = time.Minute
	if string(n.Raw) == "0" {
		p.Cache = 0
		return nil
	}
	if err := n.Duration(&p.Cache); err != nil {
		return err
	}
	if p.Cache < 0 || p.Cache > most || p.Cache%time.Second != 0 {
		return n.Wrong("whole seconds, 0s to 1m")
	}
	return nil
}
