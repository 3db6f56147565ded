package gitstate

import (
	"regexp"
	"strings"
)

var (
	urlUser = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/\s"'<>]*@`)
	scpUser = regexp.MustCompile(`^[^/\s:@]+(:[^/\s@]*)?@([^/\s:]+:)`)
)

// Redact cuts the user and the password out of a URL, and out of every URL in
// a text. An scp-like address ("git@host:path") loses its user as well.
func Redact(url string) string {
	url = urlUser.ReplaceAllString(url, "$1")
	return scpUser.ReplaceAllString(url, "$2")
}

// redact cleans a text of URLs' user info and of the given secrets.
func redact(text string, secrets []string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return urlUser.ReplaceAllString(text, "$1")
}
