package sops

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// metadataKey is the key of the metadata in a file.
const metadataKey = "sops"

// metadata is what SOPS wrote about a file.
type metadata struct {
	at           *node
	mac          string
	lastModified string // as it goes into the checksum
	recipients   []recipient
	others       []string // who else can open it, in words
	groups       bool     // the data key is split between groups of keys

	onlyEncrypted                                  bool
	encryptedSuffix, unencryptedSuffix             string
	encryptedRegex, unencryptedRegex               *regexp.Regexp
	encryptedCommentRegex, unencryptedCommentRegex *regexp.Regexp
}

// recipient is one age key for which the data key was encrypted.
type recipient struct{ name, enc string }

// backends are the kinds of keys besides age, and which field names a key.
var backends = map[string]string{
	"kms": "arn", "gcp_kms": "resource_id", "azure_kv": "vault_url", "hc_vault": "vault_address", "hckms": "key_id", "pgp": "fp",
}

const anew = "encrypt the file anew with sops"

func readMetadata(n *node) (*metadata, error) {
	m := &metadata{at: n}
	if n.kind != mapping {
		return nil, n.errorf(anew, "the metadata is no mapping")
	}
	version := n.get("version").text()
	if major, _, _ := strings.Cut(version, "."); major != "3" {
		return nil, n.get("version").orElse(n).errorf(anew+" 3", "was written by sops version %s, and only version 3 is known", cmp.Or(shorten(version), "(none)"))
	}
	for _, e := range n.entries {
		text := e.value.text()
		var err error
		switch e.key {
		case "mac":
			m.mac = text
		case "lastmodified":
			t, parseErr := time.Parse(time.RFC3339, text)
			if parseErr != nil {
				return nil, e.value.errorf(anew, "lastmodified is no time")
			}
			m.lastModified = t.Format(time.RFC3339)
		case "mac_only_encrypted":
			m.onlyEncrypted = strings.EqualFold(text, "true")
		case "encrypted_suffix":
			m.encryptedSuffix = text
		case "unencrypted_suffix":
			m.unencryptedSuffix = text
		case "encrypted_regex":
			m.encryptedRegex, err = pattern(text)
		case "unencrypted_regex":
			m.unencryptedRegex, err = pattern(text)
		case "encrypted_comment_regex":
			m.encryptedCommentRegex, err = pattern(text)
		case "unencrypted_comment_regex":
			m.unencryptedCommentRegex, err = pattern(text)
		case "age":
			for _, r := range e.value.entries {
				m.recipients = append(m.recipients, recipient{r.value.get("recipient").text(), r.value.get("enc").text()})
			}
		case "key_groups":
			if len(e.value.entries) > 0 {
				m.groups = true
				m.others = append(m.others, fmt.Sprintf("%d key groups", len(e.value.entries)))
			}
		default:
			if field, ok := backends[e.key]; ok {
				for _, k := range e.value.entries {
					m.others = append(m.others, e.key+" "+shorten(k.value.get(field).text()))
				}
			} else if strings.HasSuffix(e.key, "_regex") || strings.HasSuffix(e.key, "_suffix") {
				return nil, e.value.errorf("", "has a rule that is not known, %s", shorten(e.key))
			}
		}
		if err != nil {
			return nil, e.value.errorf(anew, "%s is no regular expression", e.key)
		}
	}
	if m.mac == "" || m.lastModified == "" {
		return nil, n.errorf(anew, "the metadata is not whole: it lacks the mac or lastmodified")
	}
	return m, nil
}

func pattern(text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil
	}
	return regexp.Compile(text)
}

func (n *node) orElse(other *node) *node {
	if n == nil {
		return other
	}
	return n
}

// shorten cuts what an author wrote, for an error to hold.
func shorten(s string) string {
	const most = 120
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// dataKey opens the data key with one of the keys.
func (m *metadata) dataKey(keys *Keys) ([]byte, error) {
	if keys.Len() > 0 && !m.groups {
		for _, r := range m.recipients {
			opened, err := age.Decrypt(armor.NewReader(strings.NewReader(r.enc)), keys.identities...)
			if err != nil {
				continue
			}
			key, err := io.ReadAll(io.LimitReader(opened, 64))
			if err != nil || len(key) != 32 {
				return nil, m.at.errorf(anew, "the data key for %s is damaged", shorten(r.name))
			}
			return key, nil
		}
	}
	e := m.at.errorf("", "is encrypted with SOPS for %s", m.audience())
	e.Locked, e.Program = true, len(m.others) > 0
	switch {
	case keys.Len() > 0 && len(m.recipients) > 0 && !m.groups:
		e.Message += ", and none of the " + count(keys.Len(), "age key") + " that were given opens it"
	case len(m.recipients) > 0:
		e.Message += ", and no key was given"
	}
	if len(m.recipients) > 0 && !m.groups {
		e.Hint = "give an age key with --age-key-file or SOPS_AGE_KEY_FILE, or under secrets.ageKeyFiles in the configuration"
	} else {
		e.Hint = "name the sops program under secrets.sops in the configuration, or encrypt the file for an age key"
	}
	return nil, e
}

// audience names for whom a file was encrypted.
func (m *metadata) audience() string {
	var names []string
	for _, r := range m.recipients {
		names = append(names, "age "+shorten(r.name))
	}
	names = append(names, m.others...)
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// encrypts says whether the value at a path is encrypted. The later rule has
// the last word, as in SOPS, which writes only one of them.
func (m *metadata) encrypts(path []string, around [][]string) bool {
	yes := true
	suffixed := func(suffix string) bool {
		return slices.ContainsFunc(path, func(p string) bool { return strings.HasSuffix(p, suffix) })
	}
	if m.unencryptedSuffix != "" && suffixed(m.unencryptedSuffix) {
		yes = false
	}
	if m.encryptedSuffix != "" {
		yes = suffixed(m.encryptedSuffix)
	}
	if m.unencryptedRegex != nil && slices.ContainsFunc(path, m.unencryptedRegex.MatchString) {
		yes = false
	}
	if m.encryptedRegex != nil {
		yes = slices.ContainsFunc(path, m.encryptedRegex.MatchString)
	}
	commented := func(r *regexp.Regexp) bool {
		return slices.ContainsFunc(around, func(level []string) bool { return slices.ContainsFunc(level, r.MatchString) })
	}
	if m.unencryptedCommentRegex != nil && commented(m.unencryptedCommentRegex) {
		yes = false
	}
	if m.encryptedCommentRegex != nil {
		yes = commented(m.encryptedCommentRegex)
	}
	return yes
}
