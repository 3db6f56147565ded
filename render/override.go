package render

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/pinion-cd/pinion/desired"
)

// Manifest reads a file that must hold one object of one kind ("batch/v1",
// "Job"). Each string value of it goes through expand; then the pins'
// references are put in the place of its images, as in a service of plain
// YAML. The error is an *Error if the file's author can mend it.
func Manifest(tree desired.Tree, file, apiVersion, kind string, expand func(string) string, pins []desired.Pin) (map[string]any, error) {
	data, err := Record(tree).ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, place{file: file}.errorf("", "there is no such file")
	}
	if err != nil {
		return nil, err
	}
	docs, err := parseFile(file, data)
	if err != nil {
		return nil, err
	}
	want := fmt.Sprintf("one %s (%s)", kind, apiVersion)
	if len(docs) == 0 {
		return nil, place{file: file}.errorf("", "is empty, where %s is needed", want)
	}
	if len(docs) > 1 {
		return nil, docs[1].place.errorf("leave only the "+kind, "holds %d objects, where %s is needed", len(docs), want)
	}
	object, ok := docs[0].value.(map[string]any)
	if !ok {
		return nil, docs[0].place.errorf("", "is %s, where %s is needed", kindOf(docs[0].value), want)
	}
	hasKind, _ := object["kind"].(string)
	hasVersion, _ := object["apiVersion"].(string)
	if hasKind != kind || hasVersion != apiVersion {
		has := "something without a kind"
		if hasKind != "" {
			has = fmt.Sprintf("%s (%s)", hasKind, hasVersion)
		}
		return nil, docs[0].place.errorf("", "is %s, where %s is needed", has, want)
	}
	object = expanded(object, expand).(map[string]any)
	overrideImages(object, pins)
	return object, nil
}

// expanded replaces all strings of a value that are no keys.
func expanded(v any, expand func(string) string) any {
	switch v := v.(type) {
	case string:
		return expand(v)
	case []any:
		for i := range v {
			v[i] = expanded(v[i], expand)
		}
	case map[string]any:
		for key := range v {
			v[key] = expanded(v[key], expand)
		}
	}
	return v
}
