package render

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
)

// kustomize builds the folder of a kustomization file.
func kustomize(rec *Recorder, req Request, file string) (sources []source, err error) {
	if err := checkKustomizations(rec, file); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			err = &Error{File: file, Message: fmt.Sprintf("Kustomize gave up: %v", r)}
		}
	}()
	// The defaults are those of kubectl -k: files from the folder of the
	// kustomization only, no plugins, the order as written.
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(&kustomizeFS{rec: rec}, "/"+path.Clean(req.Folder))
	if err != nil {
		return nil, kustomizeError(rec, file, err)
	}
	at := place{file: file}
	b := &builder{file: file, left: MaxOutput}
	for _, resource := range built.Resources() {
		v, err := b.build(resource.YNode(), 0)
		if e, ok := errors.AsType[*Error](err); ok {
			return nil, at.errorf(e.Hint, "%s: %s", resource.CurId(), e.Message)
		}
		sources = append(sources, source{value: v, place: at})
	}
	if len(sources) == 0 {
		return nil, at.errorf("", "the build holds no objects")
	}
	if sources, err = items(sources); err != nil {
		return nil, err
	}
	for _, s := range sources {
		overrideImages(s.value, req.Pins)
	}
	return sources, nil
}

var (
	targetPath   = regexp.MustCompile(`(?:for|of|from) path '/?([^']*)'`)
	unknownField = regexp.MustCompile(`json: unknown field "([^"]*)"`)
	rooted       = regexp.MustCompile(`(^|[\s'"(=])/([\w.-])`)
)

// kustomizeError cuts the chain of "accumulating resources: accumulation err"
// down to its cause, and finds the file that it is about.
func kustomizeError(rec *Recorder, file string, err error) error {
	if rec.Err() != nil {
		return rec.Err()
	}
	// A file that can't be parsed is told better by our own parser.
	for _, name := range slices.Sorted(maps.Keys(rec.files)) {
		data := rec.files[name]
		switch path.Ext(name) {
		case ".yaml", ".yml", ".json":
			if _, parseErr := parseFile(name, data); parseErr != nil && strings.Contains(err.Error(), path.Base(name)) {
				return parseErr
			}
		}
	}
	at := place{file: file}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		return fieldError(rec, m[1])
	}
	if all := targetPath.FindAllStringSubmatch(err.Error(), -1); len(all) > 0 {
		dir := all[len(all)-1][1]
		for _, name := range kustomizeFiles {
			if _, ok := rec.files[path.Join(dir, name)]; ok {
				at.file = path.Join(dir, name)
			}
		}
	}
	cause := err
	for inner := errors.Unwrap(cause); inner != nil; inner = errors.Unwrap(inner) {
		cause = inner
	}
	text := rooted.ReplaceAllString(cause.Error(), "$1$2")
	return at.errorf("", "%s", clip(text, 1000))
}

// fieldError finds the kustomization file with a field that there is not.
func fieldError(rec *Recorder, name string) *Error {
	at := place{}
	for _, file := range slices.Sorted(maps.Keys(rec.files)) {
		if !slices.Contains(kustomizeFiles, path.Base(file)) {
			continue
		}
		root, err := parseNode(file, rec.files[file])
		if err != nil {
			continue
		}
		for key := range fields(root) {
			if key.Value == name {
				at = place{file: file, line: key.Line, column: key.Column}
			}
		}
		if at.file == "" {
			at.file = file
		}
	}
	return at.errorf("", "%s: Kustomize knows no such field", name)
}
