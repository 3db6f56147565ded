package desired

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// written is how a text stands in its file, so that a place in the one can be
// found in the other.
type written struct {
	text  string
	style yaml.Style
	lines []string // of the file, from the one where the text begins
}

// written returns how a word stands in the decoder's file.
func (d *decoder) written(w word) written {
	if !w.Set || w.Bad {
		return written{}
	}
	all := splitLines(d.data)
	first := w.Position.Line - 1
	last := first + 2 + strings.Count(w.Text, "\n")
	x := written{text: w.Text, style: w.style}
	for i := first; 0 <= i && i < min(last, len(all)); i++ {
		x.lines = append(x.lines, string(d.data[all[i].start:all[i].end]))
	}
	return x
}

// place returns where a character of the text stands. The text begins at start.
func (w written) place(start Position, line, column int) Position {
	at := start
	switch {
	case len(w.lines) == 0:
		return start
	case w.style&yaml.LiteralStyle != 0:
		if strings.ContainsAny(w.lines[0][strings.LastIndexByte(w.lines[0], '|')+1:], "123456789") {
			return start // it says its indentation itself
		}
		for _, l := range w.lines[1:] {
			if content := strings.TrimLeft(l, " "); content != "" {
				at.Line, at.Column = start.Line+1+line, len(l)-len(content)+column+1
				return at
			}
		}
		return start
	case w.style&yaml.FoldedStyle != 0 || line != 0:
		return start
	}
	raw := strings.TrimPrefix(w.lines[0], string(byteOrderMark))
	for range start.Column - 1 {
		_, n := utf8.DecodeRuneInString(raw)
		raw = raw[n:]
	}
	switch {
	case w.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		at.Column++
	case !strings.HasPrefix(raw, w.text):
		return start // it goes on in another line
	default:
		at.Column += column
		return at
	}
	quoted := []rune(raw)[1:]
	for range column {
		n := 1
		switch {
		case len(quoted) == 0:
			return start
		case w.style&yaml.SingleQuotedStyle != 0 && quoted[0] == '\'':
			n = 2
		case w.style&yaml.DoubleQuotedStyle != 0 && quoted[0] == '\\' && len(quoted) > 1:
			n = 2 + map[rune]int{'x': 2, 'u': 4, 'U': 8}[quoted[1]]
		}
		n = min(n, len(quoted))
		at.Column += n
		quoted = quoted[n:]
	}
	return at
}
