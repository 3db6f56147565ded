package artifact_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pinion-cd/pinion/artifact"
)

// Nobody binds a version to something else by way of a file that can't be read.
func TestForgetsNothingThatIsBroken(t *testing.T) {
	_, was := take(t, &artifact.Shelf{}, sighting("1.4.3", digest("a")))
	_, other := take(t, &artifact.Shelf{}, sighting("1.4.3", digest("e")))
	file := artifact.File(was.Record.Repository, "1.4.3")
	read := func(text string) *artifact.Shelf {
		t.Helper()
		files := fstest.MapFS{}
		if text != "" {
			files[file] = &fstest.MapFile{Data: []byte(text)}
		}
		s, _ := artifact.ReadShelf("c", files)
		if s == nil {
			t.Fatal("there is no shelf")
		}
		return s
	}
	known := read(string(was.Record.Encode()))
	broken := read("what?")
	if err := known.Forgets(broken); err != nil {
		t.Fatal(err)
	}
	broken = broken.After(known)
	again := read("how?")
	if err := broken.Forgets(again); err != nil {
		t.Fatal(err)
	}
	for _, known := range []*artifact.Shelf{broken, again.After(broken), broken.With("d")} {
		if err := known.Forgets(read(string(other.Record.Encode()))); err == nil || !strings.Contains(err.Error(), "is bound to "+digest("a")+", and not to "+digest("e")) {
			t.Errorf("another digest: %v", err)
		}
		if err := known.Forgets(read("")); err == nil || !strings.Contains(err.Error(), "and that is removed") {
			t.Errorf("no file: %v", err)
		}
		if err := known.Forgets(read(string(was.Record.Encode()))); err != nil {
			t.Errorf("mended: %v", err)
		}
	}
}
