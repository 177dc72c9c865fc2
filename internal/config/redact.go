package config

import (
	"net/url"
	"regexp"
	"strings"
)

const redactedText = "(hidden)"

var urlText = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s,"']*`)

// RedactURLs returns value without the users and queries of URLs, which may contain secrets.
// Scheme, host and path remain.
func RedactURLs(value string) string {
	if !strings.Contains(value, "://") {
		return value
	}
	if strings.Contains(urlText.ReplaceAllString(value, ""), "@") {
		return redactedText // a password that contains a comma or a space
	}
	return urlText.ReplaceAllStringFunc(value, func(text string) string {
		u, err := url.Parse(text)
		if err != nil || u.User == nil && strings.Contains(text, "@") {
			return redactedText
		}
		return u.Scheme + "://" + u.Host + u.EscapedPath()
	})
}

// redactAddress is like RedactURLs for a value that is an address or a list of addresses,
// whose scheme may be missing.
func redactAddress(value string) string {
	if strings.ContainsAny(urlText.ReplaceAllString(value, ""), "@?#") {
		return redactedText
	}
	return RedactURLs(value)
}

// RedactServer returns an address without user and query, for messages.
func RedactServer(address string) string {
	if shown := redactAddress(address); shown != redactedText {
		return shown
	}
	return "the server"
}
