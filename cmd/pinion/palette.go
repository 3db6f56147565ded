package main

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// palette colours words on a terminal; its zero value leaves them as they are.
type palette struct{ on bool }

// paletteFor colours only on a terminal, and not where NO_COLOR is set.
func paletteFor(w io.Writer) palette {
	_, tty := terminal(w)
	return palette{on: tty && os.Getenv("NO_COLOR") == ""}
}

// printable escapes what a terminal would obey or show in another order; names
// of files and texts of the API server are not ours.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == '\t' || strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

func (p palette) paint(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) good(s string) string { return p.paint("32", s) }
func (p palette) bad(s string) string  { return p.paint("31", s) }
func (p palette) wait(s string) string { return p.paint("33", s) }
func (p palette) dim(s string) string  { return p.paint("2", s) }
