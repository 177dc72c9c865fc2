package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Kubernetes sets environment variables for each Service of a namespace in all of its
// containers, and Docker sets similar ones for links. The variables of a Service whose name
// begins with "streamcount" have the prefix of this program. They are identified by their
// names, which begin with the name of the Service, and by the form of their values.
var (
	linkHost    = regexp.MustCompile(`^(STREAMCOUNT(?:_[A-Z0-9_]+)?)_SERVICE_HOST$`)
	linkPort    = regexp.MustCompile(`^(STREAMCOUNT(?:_[A-Z0-9_]+)?)_PORT$`)
	linkPortOf  = regexp.MustCompile(`^(STREAMCOUNT(?:_[A-Z0-9_]+?)?)_PORT_[0-9]+_(?:TCP|UDP|SCTP)$`)
	linkMembers = []struct {
		name  *regexp.Regexp
		value func(string) bool
	}{
		{regexp.MustCompile(`^SERVICE_HOST$`), isAddress},
		{regexp.MustCompile(`^SERVICE_PORT(_[A-Z0-9_]+)?$`), isPort},
		{regexp.MustCompile(`^PORT(_[0-9]+_(TCP|UDP|SCTP))?$`), isPortURL},
		{regexp.MustCompile(`^PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO$`), isProtocol},
		{regexp.MustCompile(`^PORT_[0-9]+_(TCP|UDP|SCTP)_PORT$`), isPort},
		{regexp.MustCompile(`^PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR$`), isAddress},
		{regexp.MustCompile(`^NAME$`), func(v string) bool { return strings.HasPrefix(v, "/") }}, // Docker's
	}
)

func isAddress(v string) bool  { _, err := netip.ParseAddr(v); return err == nil }
func isPort(v string) bool     { n, err := strconv.ParseUint(v, 10, 16); return err == nil && n > 0 }
func isProtocol(v string) bool { return v == "tcp" || v == "udp" || v == "sctp" }

func isPortURL(v string) bool {
	u, err := url.Parse(v)
	return err == nil && isProtocol(u.Scheme) && isAddress(u.Hostname()) && isPort(u.Port()) &&
		u.Scheme+"://"+u.Host == v
}

// serviceLinks returns the names of the variables in env that belong to a Service.
func serviceLinks(env map[string]string) map[string]bool {
	services := map[string]bool{}
	for name, value := range env {
		if m := linkHost.FindStringSubmatch(name); m != nil && isAddress(value) {
			services[m[1]] = true
		}
		for _, form := range []*regexp.Regexp{linkPort, linkPortOf} {
			if m := form.FindStringSubmatch(name); m != nil && isPortURL(value) {
				services[m[1]] = true
			}
		}
	}
	links := map[string]bool{}
	for service := range services {
		for name, value := range env {
			if rest, ok := strings.CutPrefix(name, service+"_"); ok && isLinkMember(rest, value) {
				links[name] = true
			}
		}
	}
	return links
}

func isLinkMember(rest, value string) bool {
	for _, m := range linkMembers {
		if m.name.MatchString(rest) {
			return m.value(value)
		}
	}
	return false
}
