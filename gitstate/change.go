package gitstate

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Change is one commit to be: files to write onto a branch as it was judged.
type Change struct {
	Branch string // the mirror's own if empty
	// Expected is the tip that was judged, and the parent to be. What it means
	// that it is empty depends on the place of the change in a push:
	//
	//   - In a branch's first change (and in Commit): the branch must not exist
	//     yet, and the commit has no parent.
	//   - In each later change of the same branch it has to be empty: the parent
	//     is the commit of the change before it, which nobody can know yet.
	Expected string
	// Parent, in a branch's first change, is the parent to be where that is not
	// the tip: the branch is made there, or taken there from wherever it was.
	// It is for branches that nobody but us writes to; one that is mirrored is
	// never rewritten.
	Parent string
	// Files are the contents by name; nil deletes a file, and that it was not
	// there is no error. What is not named stays. A file that was executable
	// stays so. The contents must not be changed before the push returns.
	Files map[string][]byte
	// Blobs are more such files, whose contents are for more than one push.
	Blobs   map[string]*Blob
	Message string
	// Author and Committer need a name, an address and a time.
	Author, Committer Signature
	// AllowEmpty lets a commit through whose tree is that of its parent;
	// otherwise that is an ErrUnchanged.
	AllowEmpty bool
	// Sign, if set, returns the signature of the commit's bytes, as it goes
	// into its header (armored).
	Sign func(commit []byte) (string, error)
	// Guard, if set, is asked right before the push is sent. If it returns an
	// error, nothing of the push is sent, and that is the error.
	Guard func() error
}

// encode writes the commit object, with the tree and the parents of another.
func (c *Change) encode(as *commit) ([]byte, error) {
	message := strings.TrimRight(c.Message, "\n") + "\n"
	if strings.TrimSpace(message) == "" {
		return nil, errors.New("the commit needs a message")
	}
	if strings.ContainsRune(message, 0) {
		return nil, errors.New("the message has a NUL character")
	}
	author, err := c.Author.encode()
	if err != nil {
		return nil, fmt.Errorf("author: %w", err)
	}
	committer, err := c.Committer.encode()
	if err != nil {
		return nil, fmt.Errorf("committer: %w", err)
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "tree %s\n", as.tree)
	for _, id := range as.parents {
		fmt.Fprintf(&head, "parent %s\n", id)
	}
	fmt.Fprintf(&head, "author %s\ncommitter %s\n", author, committer)
	plain := fmt.Appendf(nil, "%s\n%s", &head, message)
	if c.Sign == nil {
		return plain, nil
	}
	signature, err := c.Sign(plain)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	signature = strings.ReplaceAll(strings.TrimRight(signature, "\n"), "\n", "\n ")
	return fmt.Appendf(nil, "%sgpgsig %s\n\n%s", &head, signature, message), nil
}

func (s Signature) encode() (string, error) {
	clean := func(what, v string) error {
		if strings.TrimSpace(v) == "" || strings.ContainsAny(v, "<>\n\x00") {
			return fmt.Errorf("%q can't be %s", v, what)
		}
		return nil
	}
	if err := errors.Join(clean("a name", s.Name), clean("an address", s.Email)); err != nil {
		return "", err
	}
	if s.Time.IsZero() || s.Time.Before(time.Unix(0, 0)) {
		return "", errors.New("it needs a time")
	}
	return fmt.Sprintf("%s <%s> %d %s", strings.TrimSpace(s.Name), strings.TrimSpace(s.Email), s.Time.Unix(), s.Time.Format("-0700")), nil
}
