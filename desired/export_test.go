package desired

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Kept says where what an editor keeps is not what parsing its file gives.
func (e *Editor) Kept() error {
	s, err := openSplice(e.splice.file, e.splice.bytes())
	if err != nil {
		return err
	}
	if !slices.Equal(s.lines, e.splice.lines) {
		return fmt.Errorf("the lines are %v, not %v", e.splice.lines, s.lines)
	}
	if is := calm(s.text, s.root); is != e.splice.calm {
		return fmt.Errorf("calm is %v", e.splice.calm)
	}
	return differs(e.splice.root, s.root)
}

// Tree is another one after the file was parsed again.
func (e *Editor) Tree() any { return e.splice.root }

func differs(a, b *yaml.Node) error {
	if a.Kind != b.Kind || a.Tag != b.Tag || a.Value != b.Value || a.Style != b.Style || a.Line != b.Line || a.Column != b.Column || len(a.Content) != len(b.Content) {
		show := func(n *yaml.Node) string {
			return fmt.Sprintf("%d:%d: kind %d, style %d, %s %q of %d", n.Line, n.Column, n.Kind, n.Style, n.Tag, n.Value, len(n.Content))
		}
		return fmt.Errorf("kept is\n%s, parsed is\n%s", show(a), show(b))
	}
	for i := range a.Content {
		if err := differs(a.Content[i], b.Content[i]); err != nil {
			return err
		}
	}
	return nil
}
