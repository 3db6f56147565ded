package render

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render/sops"
)

// The names of the files that say which renderer a folder wants. Kustomize
// knows its file under three names.
const jsonnetFile = "main.jsonnet"

var kustomizeFiles = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// source is one object as a renderer left it.
type source struct {
	value any
	place place
}

// Build renders a service in this very process. The context is looked at
// before and after the manifests are evaluated, for neither Jsonnet nor
// Kustomize can be stopped; nor is there any defence against manifests that
// use up the memory or the stack. Whoever does not trust them uses package
// worker.
//
// The error is an *Error if the author of the manifests can mend it.
func Build(ctx context.Context, tree desired.Tree, req Request) (*Result, error) {
	return new(Renderer).Build(ctx, tree, req)
}

// Renderer builds one service after another, and keeps what is costly to make
// again: the parsed libraries that Jsonnet imports. What it keeps never shows
// in a result. It serves one goroutine.
type Renderer struct {
	// Keys open encrypted files.
	Keys *sops.Keys
	// Program opens those that Keys do not; nil: nothing does.
	Program Program

	vm *machine
}

// Build is like the function Build.
func (b *Renderer) Build(ctx context.Context, tree desired.Tree, req Request) (*Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if req.Webhook != "" {
		digest, err := req.Digest()
		return &Result{Digest: digest}, err // there are no objects: what it is asked with stands for them
	}
	if !fs.ValidPath(req.Folder) {
		return nil, &Error{File: req.Folder, Message: "the folder of the manifests must lie within the repository"}
	}
	rec := Record(tree)
	secrets := &secrets{keys: b.Keys, program: b.Program}
	rec.decrypt = secrets.open
	result, err := b.build(ctx, rec, secrets, req)
	if secrets.files == 0 {
		return result, err
	}
	b.vm = nil // it has parsed files, and keeps what is in them
	mask := NewMask(secrets.values)
	if err != nil {
		return nil, mask.hide(err)
	}
	for i, w := range result.Warnings {
		result.Warnings[i] = mask.Hide(w)
	}
	return result, nil
}

func (b *Renderer) build(ctx context.Context, rec *Recorder, secrets *secrets, req Request) (*Result, error) {
	sources, warnings, err := b.sources(rec, req)
	secrets.done()
	if secrets.err != nil {
		return nil, secrets.err // whatever a renderer made of it
	}
	if err := firstError(rec.Err(), err); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	reads, err := rec.Reads()
	if err != nil {
		return nil, err
	}
	result, err := finish(sources, req, secrets, reads)
	if err != nil {
		return nil, err
	}
	result.Warnings = append(warnings, result.Warnings...)
	result.Reads, result.Sealed = reads, secrets.files > 0
	return result, ctx.Err()
}

// firstError chooses between what went wrong with reading and what a renderer
// made of it. A failure of reading counts even if the renderer could do
// without; but if the author can mend it, the renderer knows the line.
func firstError(reading, rendering error) error {
	if reading == nil {
		return rendering
	}
	if _, ok := errors.AsType[*Error](reading); ok && rendering != nil {
		return rendering
	}
	return reading
}

// sources finds the renderer and runs it.
func (b *Renderer) sources(rec *Recorder, req Request) ([]source, []string, error) {
	main := path.Join(req.Folder, jsonnetFile)
	data, err := rec.ReadFile(main)
	if err == nil {
		return b.jsonnet(rec, req, main, data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, name := range kustomizeFiles {
		file := path.Join(req.Folder, name)
		_, err := rec.ReadFile(file)
		if err == nil {
			sources, err := kustomize(rec, req, file)
			return sources, nil, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	sources, err := plain(rec, req)
	return sources, nil, err
}

// plain reads the YAML and JSON files of a folder, but not of those below it.
func plain(rec *Recorder, req Request) ([]source, error) {
	at := place{file: req.Folder}
	entries, err := rec.ReadDir(req.Folder)
	if errors.Is(err, fs.ErrNotExist) {
		if link := linkIn(rec.tree, req.Folder); link != "" {
			return nil, linkError(link)
		}
		return nil, at.errorf("create it, or name another one under manifests: in the service's file", "there is no such folder")
	}
	if err != nil {
		return nil, err
	}
	var sources []source
	for _, e := range entries {
		file := path.Join(req.Folder, e.Name())
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || file == path.Join("services", string(req.Service), "service.yaml") {
			continue
		}
		switch path.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
		default:
			continue
		}
		data, err := rec.ReadFile(file)
		if err != nil {
			return nil, err
		}
		docs, err := parseFile(file, data)
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			sources = append(sources, source(doc))
		}
	}
	if len(sources) == 0 {
		return nil, at.errorf(fmt.Sprintf("add %s, %s or YAML files", jsonnetFile, kustomizeFiles[0]), "the folder holds no manifests")
	}
	sources, err = items(sources)
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		overrideImages(s.value, req.Pins)
	}
	return sources, nil
}

// items takes lists of objects apart: kind List, and any kind of list that
// the API server answers with.
func items(sources []source) ([]source, error) {
	var out []source
	for _, s := range sources {
		m, ok := s.value.(map[string]any)
		if !ok || !isList(m) {
			out = append(out, s)
			continue
		}
		inner := make([]source, 0, len(m["items"].([]any)))
		for i, item := range m["items"].([]any) {
			at := s.place
			at.path += fmt.Sprintf(".items[%d]", i)
			inner = append(inner, source{value: item, place: at})
		}
		inner, err := items(inner)
		if err != nil {
			return nil, err
		}
		if out = append(out, inner...); len(out) > MaxObjects {
			return nil, tooMany(s.place)
		}
	}
	return out, nil
}

func isList(m map[string]any) bool {
	kind, _ := m["kind"].(string)
	_, ok := m["items"].([]any)
	return ok && strings.HasSuffix(kind, "List")
}

func tooMany(at place) *Error {
	return at.errorf("split the service", "there are more than %d objects", MaxObjects)
}
