package main

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// table writes rows in columns. Unlike text/tabwriter it may be handed one page
// after the other, of which a later one keeps to the columns of the first, and
// a cell may have a colour.
type table struct {
	w      io.Writer
	indent string
	widths []int
}

// cell is a text and how it is painted; nil: as it is.
type cell struct {
	text  string
	paint func(string) string
}

func plain(texts ...string) []cell {
	cells := make([]cell, len(texts))
	for i, t := range texts {
		cells[i].text = t
	}
	return cells
}

// write writes rows. Of a text with several lines, the first one is written.
func (t *table) write(rows ...[]cell) error {
	for _, row := range rows {
		for i := range row {
			row[i].text = dash(printable(firstLine(row[i].text)))
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(t.indent)
		for i, c := range row {
			text := c.text
			if c.paint != nil {
				text = c.paint(text)
			}
			b.WriteString(text)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

// paintState colours by where a deployment stands.
func (p palette) state(state string) func(string) string {
	switch state {
	case "verified", "passed", "success", "runs":
		return p.good
	case "failed", "failure", "refused":
		return p.bad
	case "superseded", "retired", "ran", "-":
		return p.dim
	}
	return p.wait
}

// filled leaves out the columns in which there is nothing but the heading.
func filled(rows [][]cell) [][]cell {
	if len(rows) < 2 {
		return rows
	}
	all := make([][]cell, len(rows))
	for i := range rows[0] {
		if !slices.ContainsFunc(rows[1:], func(row []cell) bool { return row[i].text != "" }) {
			continue
		}
		for j, row := range rows {
			all[j] = append(all[j], row[i])
		}
	}
	return all
}
