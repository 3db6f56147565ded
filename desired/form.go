package desired

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// form is what the text of a key must look like.
type form struct {
	noun    string // completes "… is the number 3, not"
	pattern string // for the schema; no stricter than check
	format  string // for the schema
	check   func(string) (message, hint string)
}

const (
	labelPattern = `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`
	labelHint    = "a name is at most 63 lower-case letters, digits and hyphens, with a letter or digit at both ends"
)

var (
	labelRegexp    = regexp.MustCompile(`^` + labelPattern + `$`)
	commitRegexp   = regexp.MustCompile(`^[0-9a-f]{40}$`)
	hexRegexp      = regexp.MustCompile(`^[0-9a-f]+$`)
	durationRegexp = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`)
	accountRegexp  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	timezoneRegexp = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$`)
)

var forms = map[string]form{
	"label":    {noun: "a name", pattern: `^` + labelPattern + `$`, check: checkLabel},
	"claim":    {noun: "a name", pattern: `^(\*|` + labelPattern + `)$`, check: checkClaim},
	"commit":   {noun: "a commit", pattern: `^[0-9a-f]{40}$`, check: checkCommit},
	"image":    {noun: "an image reference", pattern: `^\S+[:@]\S+$`, check: checkImage},
	"duration": {noun: "a duration", pattern: durationRegexp.String(), check: checkDuration},
	"time":     {noun: "a time", format: "date-time", check: checkTime},
	"folder":   {noun: "a folder", pattern: `^[^/\\]`, check: checkFolder},
	"path":     {noun: "a path", pattern: `^[^/\\]`, check: checkPath},
	"url":      {noun: "an address", pattern: `^https?://`, check: checkURL},
	"window":   {noun: "days and hours", pattern: `^\s*[A-Za-z]{3}(-[A-Za-z]{3})?\s+\d\d:\d\d-\d\d:\d\d`, check: checkWindow},
	"timezone": {noun: "a time zone", pattern: timezoneRegexp.String(), check: checkTimezone},
	"token":    {noun: "a name", pattern: `^\S+$`, check: checkToken},
	"account":  {noun: "the name of a service account", pattern: accountRegexp.String(), check: checkAccount},
	"line":     {noun: "text", pattern: `^\S(.*\S)?$`, check: checkLine},
	"news":     {noun: "news", pattern: `^(` + strings.Join(newsNames, "|") + `)$`, check: checkNews},
	"kind":     {noun: "a kind", pattern: kindRegexp.String(), check: checkKind},
	"group":    {noun: "an API group", pattern: groupRegexp.String(), check: checkGroup},
	"version":  {noun: "an API version", pattern: apiVersionRegexp.String(), check: checkAPIVersion},
	"pattern":  {noun: "a name", pattern: `^[^\s/?\[\]]+$`, check: checkPattern},
	"pointer":  {noun: "a JSON pointer", pattern: pointerRegexp.String(), check: checkPointer},
	"range":    {noun: "a range of versions", pattern: `\S`, check: checkRange},
	"tags":     {noun: "a pattern of tags", pattern: `\{(date|number|version)\}`, check: checkTags},
	"text":     {noun: "text", pattern: `\S`, check: checkText},
}

func checkLabel(s string) (message, hint string) {
	if labelRegexp.MatchString(s) {
		return "", ""
	}
	guess := strings.Trim(strings.NewReplacer("_", "-", ".", "-", " ", "-").Replace(strings.ToLower(s)), "-")
	if labelRegexp.MatchString(guess) {
		return fmt.Sprintf("%q is not a name", s), fmt.Sprintf("did you mean %q? %s", guess, labelHint)
	}
	return fmt.Sprintf("%q is not a name", abridge(s)), labelHint
}

// checkAccount takes what Kubernetes takes for the name of a ServiceAccount. A
// name that is not one stands for nobody, and never for the daemon itself.
func checkAccount(s string) (message, hint string) {
	const want = "write the name alone, without its namespace: it is looked for in the environment's own; leave the key out for the daemon's own account"
	switch {
	case len(s) <= 253 && accountRegexp.MatchString(s):
		return "", ""
	case s == "":
		return "the service account has no name", want
	}
	if i := strings.LastIndexAny(s, ":/"); i >= 0 && accountRegexp.MatchString(s[i+1:]) {
		return fmt.Sprintf("%q is not the name of a service account", abridge(s)), fmt.Sprintf("did you mean %q? %s", s[i+1:], want)
	}
	return fmt.Sprintf("%q is not the name of a service account", abridge(s)), want
}

func checkClaim(s string) (message, hint string) {
	if s == string(AnyService) {
		return "", ""
	}
	if message, hint = checkLabel(s); message != "" && strings.Contains(s, "*") {
		hint = `only "*" alone stands for several services: name them one by one`
	}
	return message, hint
}

func checkCommit(s string) (message, hint string) {
	switch {
	case commitRegexp.MatchString(s):
		return "", ""
	case hexRegexp.MatchString(s) && len(s) < 40:
		return fmt.Sprintf("%q is an abbreviated commit: %d digits of 40", s, len(s)), "write all 40 digits: git rev-parse " + s
	case commitRegexp.MatchString(strings.ToLower(s)):
		return fmt.Sprintf("%q has upper-case digits", s), "write " + strings.ToLower(s)
	}
	return fmt.Sprintf("%q is not a commit", abridge(s)), "write the 40 hexadecimal digits of a commit of this repository: git rev-parse NAME"
}

func checkImage(s string) (message, hint string) {
	_, err := ParseImage(s)
	return splitHint(err)
}

func checkDuration(s string) (message, hint string) {
	const units = "write a number with its unit: 90s, 30m, 2h"
	d, err := time.ParseDuration(s)
	switch {
	case durationRegexp.MatchString(s) && err != nil:
		return fmt.Sprintf("%q is too long", abridge(s)), units
	case durationRegexp.MatchString(s) && d <= 0:
		return fmt.Sprintf("%q is no time at all", s), units
	case durationRegexp.MatchString(s):
		return "", ""
	}
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.ParseUint(n, 10, 16); err == nil {
			return fmt.Sprintf("%q is not a duration: there is no unit d", s), fmt.Sprintf("write %dh", days*24)
		}
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return fmt.Sprintf("%q has no unit", s), units
	}
	return fmt.Sprintf("%q is not a duration", abridge(s)), units
}

func checkTime(s string) (message, hint string) {
	if _, err := time.Parse(time.RFC3339, s); err == nil {
		return "", ""
	}
	if _, err := time.Parse(time.DateOnly, s); err == nil {
		return fmt.Sprintf("%q is a day, not a time", s), "write " + s + "T00:00:00Z"
	}
	return fmt.Sprintf("%q is not a time", abridge(s)), "write it as in RFC 3339: 2026-12-01T09:00:00Z"
}

// checkFolder looks only at the text; whether the folder leaves the tree
// depends on where the file lies.
func checkFolder(s string) (message, hint string) {
	rest := strings.ReplaceAll(s, "{environment}", "environment")
	if i := strings.IndexAny(rest, "{}"); i >= 0 {
		return fmt.Sprintf("%q holds a placeholder that is not known", abridge(s)), "the only one is {environment}"
	}
	return checkPath(rest)
}

func checkPath(s string) (message, hint string) {
	switch {
	case s == "":
		return "the path is empty", "write . for the folder of this file"
	case strings.Contains(s, `\`):
		return fmt.Sprintf("%q has a backslash", abridge(s)), "separate folders with /"
	case path.IsAbs(s):
		return fmt.Sprintf("%q is absolute", abridge(s)), "write it relative to the folder of this file"
	}
	return "", ""
}

func checkURL(s string) (message, hint string) {
	const want = "write http://HOST/PATH or https://HOST/PATH"
	rest := strings.NewReplacer("{environment}", "e", "{namespace}", "n", "{service}", "s").Replace(s)
	if strings.ContainsAny(rest, "{}") {
		return fmt.Sprintf("%q holds a placeholder that is not known", abridge(s)), "known are {environment}, {namespace} and {service}"
	}
	// The parser's error repeats the address, which may hold a password.
	u, err := url.Parse(rest)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		if err == nil && u.User == nil && !strings.Contains(s, "@") {
			return fmt.Sprintf("%q is not an address", abridge(s)), want
		}
		return "this is not an address", want
	case u.User != nil:
		return "the address holds credentials", "a repository is no place for a secret: remove what is before the @"
	}
	return "", ""
}

func checkWindow(s string) (message, hint string) {
	if _, err := parseSpans(s); err != nil {
		return err.Error(), `write days and hours: "Mon-Thu 09:00-16:00, Fri 09:00-12:00"`
	}
	return "", ""
}

func checkTimezone(s string) (message, hint string) {
	if timezoneRegexp.MatchString(s) && s != "Local" {
		return "", ""
	}
	return fmt.Sprintf("%q is not a time zone", abridge(s)), "write a name of the IANA database: Europe/Prague, UTC"
}

func checkToken(s string) (message, hint string) {
	if s == "" || len(strings.Fields(s)) != 1 || strings.Fields(s)[0] != s {
		return fmt.Sprintf("%q is not a name", abridge(s)), "a name is not empty and has no spaces"
	}
	return "", ""
}

func checkLine(s string) (message, hint string) {
	if strings.TrimSpace(s) == "" {
		return "the text is empty", ""
	}
	if strings.ContainsAny(s, "\n\r") || strings.TrimSpace(s) != s {
		return fmt.Sprintf("%q is not one line without spaces around it", abridge(s)), ""
	}
	return "", ""
}

func checkText(s string) (message, hint string) {
	if strings.TrimSpace(s) == "" {
		return "the text is empty", ""
	}
	return "", ""
}

// abridge keeps a message readable whatever a file holds.
func abridge(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xc0 == 0x80 {
		cut--
	}
	return s[:cut] + "…"
}
