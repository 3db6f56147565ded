package render

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// finish makes objects of what a renderer left: checked, labelled, sorted.
func finish(sources []source, req Request, secrets *secrets, reads []Read) (*Result, error) {
	if len(sources) > MaxObjects {
		return nil, tooMany(place{file: req.Folder})
	}
	f := finisher{req: req, secrets: secrets, reads: reads, defined: definitions(sources), seen: map[Ref]place{}}
	size := 0
	for _, s := range sources {
		object, err := f.object(s)
		if err != nil {
			return nil, err
		}
		if size += len(object.JSON); size > MaxOutput {
			return nil, place{file: req.Folder}.errorf("split the service", "the objects are larger than %d MiB together", MaxOutput>>20)
		}
		f.objects = append(f.objects, object)
	}
	for _, p := range req.Pins {
		if !f.used[string(p.Artifact)] {
			f.warnf("%s: no object uses the pin of %s (%s)", req.Folder, p.Artifact, p.Image.Reference)
		}
	}
	slices.SortFunc(f.objects, func(a, b Object) int { return CompareOrder(a.Ref, b.Ref) })
	r := &Result{Digest: Digest(f.objects), Warnings: f.warnings}
	for _, o := range f.objects {
		if when := f.hooks[o.Ref]; when != "" {
			r.Hooks = append(r.Hooks, Hook{When: when, Object: o})
			continue
		}
		r.Objects = append(r.Objects, o)
	}
	slices.SortFunc(r.Hooks, func(a, b Hook) int {
		return cmp.Or(cmp.Compare(b.When, a.When), a.Ref.Compare(b.Ref)) // before, after
	})
	return r, nil
}

// Digest returns "sha256:…" over the names and digests of objects, in the
// order given.
func Digest(objects []Object) string {
	var b bytes.Buffer
	for _, o := range objects {
		fmt.Fprintf(&b, "%q %q %q %q %s\n", o.Ref.Group, o.Ref.Kind, o.Ref.Namespace, o.Ref.Name, o.Digest)
	}
	return digest(b.Bytes())
}

type finisher struct {
	req      Request
	secrets  *secrets
	reads    []Read
	defined  map[groupKind]bool
	seen     map[Ref]place
	used     map[string]bool // artifacts whose reference some object holds
	hooks    map[Ref]string  // when they run
	objects  []Object
	warnings []string
}

func (f *finisher) warnf(format string, args ...any) {
	f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
}

func (f *finisher) object(s source) (Object, error) {
	m, ok := s.value.(map[string]any)
	if !ok {
		return Object{}, s.place.errorf("", "is %s, where a Kubernetes object is needed", kindOf(s.value))
	}
	ref, version, err := identify(s.place, m)
	if err != nil {
		return Object{}, err
	}
	// From here on the object has a name by which it can be told.
	meta := m["metadata"].(map[string]any)
	if err := f.place(s.place, &ref, meta); err != nil {
		return Object{}, err
	}
	if other, ok := f.seen[ref]; ok {
		return Object{}, s.place.errorf("keep one of the two", "%s is there twice, first in %s", ref, other)
	}
	f.seen[ref] = s.place

	delete(m, "status")
	for _, key := range []string{"creationTimestamp", "managedFields", "resourceVersion", "uid", "generation", "selfLink"} {
		delete(meta, key) // only the cluster writes these
	}
	f.aggregated(s.place, ref, m)
	if err := f.mark(s.place, ref, meta); err != nil {
		return Object{}, err
	}
	for _, p := range f.req.Pins {
		if !f.used[string(p.Artifact)] && mentions(m, p.Image.Reference) {
			if f.used == nil {
				f.used = map[string]bool{}
			}
			f.used[string(p.Artifact)] = true
		}
	}
	object := Object{Ref: ref, Version: version, At: desired.Position{File: s.place.file, Line: s.place.line, Column: s.place.column}}
	if isSecret(ref) {
		if err := f.plaintext(s.place, ref, m); err != nil {
			return Object{}, err
		}
	} else {
		object.Hidden = f.secrets.hidden(m)
	}
	data, err := canonical(m)
	if err != nil {
		return Object{}, s.place.errorf("", "%s can't be written as JSON: %v", ref, err)
	}
	if object.Digest, err = f.digest(ref, m, data, object.Hidden); err != nil {
		return Object{}, err
	}
	annotations, _ := meta["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		meta["annotations"] = annotations
	}
	annotations[AnnotationDigest] = object.Digest
	if object.JSON, err = canonical(m); err != nil {
		return Object{}, s.place.errorf("", "%s can't be written as JSON: %v", ref, err)
	}
	if len(object.JSON) > maxObject {
		f.warnf("%s: %s is larger than %d MiB, and a cluster takes no object of more than about 1.5 MiB", s.place, ref, maxObject>>20)
	}
	return object, nil
}

// aggregated leaves the rules of an aggregated ClusterRole to the controller
// that writes them. Most authors write an empty list there; applying that
// would take the role's permissions away each time, until they are back.
func (f *finisher) aggregated(at place, ref Ref, m map[string]any) {
	if ref.Group != "rbac.authorization.k8s.io" || ref.Kind != "ClusterRole" || m["aggregationRule"] == nil {
		return
	}
	if rules, ok := m["rules"].([]any); ok && len(rules) > 0 {
		f.warnf("%s: %s: rules are dropped, for with aggregationRule a controller writes them", at, ref)
	}
	delete(m, "rules")
}

// identify reads what every object must have.
func identify(at place, m map[string]any) (Ref, string, error) {
	apiVersion, ok := m["apiVersion"].(string)
	if !ok || apiVersion == "" {
		return Ref{}, "", at.errorf("add apiVersion:, as in v1 or apps/v1", "is not a Kubernetes object: it has no apiVersion")
	}
	kind, ok := m["kind"].(string)
	if !ok || kind == "" {
		return Ref{}, "", at.errorf("add kind:, as in Deployment", "is not a Kubernetes object: it has no kind")
	}
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "", apiVersion
	}
	if version == "" || (ok && group == "") || strings.Contains(version, "/") {
		return Ref{}, "", at.errorf("write it as v1 or apps/v1", "%s has the apiVersion %q", kind, apiVersion)
	}
	if group == "pinion.dev" {
		return Ref{}, "", at.errorf("move it to the folder of its kind", "%s %s is a file of Pinion's own, not an object of a cluster", apiVersion, kind)
	}
	meta, ok := m["metadata"].(map[string]any)
	if !ok {
		return Ref{}, "", at.errorf("add metadata: {name: …}", "%s has no metadata", kind)
	}
	name, ok := meta["name"].(string)
	if !ok || name == "" {
		if _, ok := meta["generateName"]; ok {
			return Ref{}, "", at.errorf("give it a name: the same commit must always mean the same object", "%s has generateName instead of a name", kind)
		}
		if meta["name"] != nil && !ok {
			return Ref{}, "", at.errorf("quote it", "the name of a %s must be a string, not %s", kind, kindOf(meta["name"]))
		}
		return Ref{}, "", at.errorf("add metadata.name", "%s has no name", kind)
	}
	if name == "." || name == ".." || len(name) > 253 || strings.ContainsAny(name, "/%") {
		return Ref{}, "", at.errorf("use lower-case letters, digits, hyphens and dots", "%s has the name %q, which no object can have", kind, name)
	}
	return Ref{Group: group, Kind: kind, Name: name}, version, nil
}

var namespaceForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// place puts the object into the environment's namespace, unless it names
// another one, or into none.
func (f *finisher) place(at place, ref *Ref, meta map[string]any) error {
	kind := groupKind{ref.Group, ref.Kind}
	cluster, ok := f.defined[kind]
	if !ok {
		cluster = kind.isClusterScoped()
	}
	if cluster {
		delete(meta, "namespace")
		return nil
	}
	if v, ok := meta["namespace"]; ok && v != nil && v != "" {
		namespace, ok := v.(string)
		if !ok {
			return at.errorf("", "%s: metadata.namespace must be a string, not %s", ref, kindOf(v))
		}
		if len(namespace) > 63 || !namespaceForm.MatchString(namespace) {
			return at.errorf("leave metadata.namespace out: it is set by the environment", "%s is in the namespace %q, which no cluster can have", ref, namespace)
		}
		// Whether it may be there is for the daemon's configuration to say.
		ref.Namespace = namespace
		return nil
	}
	meta["namespace"] = f.req.Namespace
	ref.Namespace = f.req.Namespace
	return nil
}

// mark sets the labels, and checks what the author wrote among them.
func (f *finisher) mark(at place, ref Ref, meta map[string]any) error {
	for _, field := range []string{"labels", "annotations"} {
		v, ok := meta[field]
		if !ok {
			continue
		}
		if v == nil {
			delete(meta, field)
			continue
		}
		m, ok := v.(map[string]any)
		if !ok {
			return at.errorf("", "%s: metadata.%s must be an object, not %s", ref, field, kindOf(v))
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			value, ok := m[key].(string)
			if !ok {
				return at.errorf("quote the value", "%s: metadata.%s has a value that is not a string: %s is %s", ref, field, key, kindOf(m[key]))
			}
			if !strings.HasPrefix(key, "pinion.dev/") {
				continue
			}
			switch key {
			case AnnotationPrune:
				if field == "labels" || value != PruneAllow && value != PruneNever {
					return at.errorf("write it as an annotation: "+AnnotationPrune+": "+PruneAllow+", or "+PruneNever,
						"%s: metadata.%s has %s: %q", ref, field, key, value)
				}
				continue
			case AnnotationHook:
				if field == "labels" || value != HookBefore && value != HookAfter {
					return at.errorf("write it as an annotation: "+AnnotationHook+": "+HookBefore+", or "+HookAfter,
						"%s: metadata.%s has %s: %q", ref, field, key, value)
				}
				if ref.Group != "batch" || ref.Kind != "Job" {
					return at.errorf("make it a Job, or leave the annotation out", "%s has the annotation %s, and only a Job can be a hook", ref, key)
				}
				if f.hooks == nil {
					f.hooks = map[Ref]string{}
				}
				f.hooks[ref] = value
				continue
			case AnnotationReplace:
				if field == "labels" || value != ReplaceAllow {
					return at.errorf("write it as an annotation: "+AnnotationReplace+": "+ReplaceAllow+", or leave it out",
						"%s: metadata.%s has %s: %q", ref, field, key, value)
				}
				if NeverReplaced(ref) {
					return at.errorf("leave the annotation out", "%s has the annotation %s, and a %s is never replaced: with it would go what no commit can bring back", ref, key, ref.Kind)
				}
				continue
			case LabelEnvironment, LabelService, AnnotationCommit, AnnotationDigest:
				f.warnf("%s: %s: %s is set by Pinion; the value %q is dropped", at, ref, key, value)
				delete(m, key)
			default:
				f.warnf("%s: %s: %s means nothing to Pinion", at, ref, key)
			}
		}
		if len(m) == 0 {
			delete(meta, field)
		}
	}
	labels, _ := meta["labels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
		meta["labels"] = labels
	}
	labels[LabelManagedBy] = ManagedBy
	labels[LabelEnvironment] = string(f.req.Environment)
	labels[LabelService] = string(f.req.Service)
	return nil
}
