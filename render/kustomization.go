package render

import (
	"errors"
	"io/fs"
	"iter"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checkKustomizations reads a kustomization file and all that it names, and
// refuses what a rendering must not do: fetch, run another program, leave the
// tree, or change the state that Kustomize shares between builds. Kustomize
// itself refuses some of it as well, later and without a line.
func checkKustomizations(rec *Recorder, file string) error {
	c := kustomizationCheck{rec: rec, seen: map[string]bool{}}
	return c.file(file)
}

type kustomizationCheck struct {
	rec  *Recorder
	seen map[string]bool // kustomization files
}

// What a field of a kustomization file names.
var (
	// folders with a kustomization file, or, for the first two, files
	resourceFields = []string{"resources", "bases", "components"}
	// the configuration of plugins: a file, a folder or YAML in place
	pluginFields = []string{"generators", "transformers", "validators"}
	// files
	fileFields = []string{"patchesStrategicMerge", "crds", "configurations"}
	// lists of objects that name files under path:, files:, envs: and env:
	objectFields  = []string{"patches", "patchesJson6902", "replacements", "configMapGenerator", "secretGenerator"}
	refusedFields = map[string]string{
		"helmCharts":                  "commit what helm template prints instead",
		"helmChartInflationGenerator": "commit what helm template prints instead",
		"helmGlobals":                 "commit what helm template prints instead",
		"<<":                          "write the fields out",
		"openapi":                     "a schema of one's own would stay for the builds of other services; patch with JSON 6902 instead",
	}
)

func (c *kustomizationCheck) file(file string) error {
	if c.seen[file] {
		return nil
	}
	c.seen[file] = true
	data, err := c.rec.ReadFile(file)
	if err != nil {
		return err
	}
	root, err := parseNode(file, data)
	if err != nil || root == nil {
		return err
	}
	at := place{file: file, line: root.Line, column: root.Column}
	if root.Kind != yaml.MappingNode {
		return at.errorf("", "a kustomization must be an object")
	}
	dir := path.Dir(file)
	for key, value := range fields(root) {
		at := place{file: file, line: key.Line, column: key.Column}
		for name, hint := range refusedFields {
			if strings.EqualFold(name, key.Value) {
				return at.errorf(hint, "%s: is not supported", key.Value)
			}
		}
		var err error
		switch {
		case isOne(key.Value, resourceFields):
			err = c.each(file, value, func(at place, entry string) error { return c.resource(at, dir, entry, key.Value) })
		case isOne(key.Value, pluginFields):
			err = c.each(file, value, func(at place, entry string) error { return c.plugin(at, dir, entry) })
		case isOne(key.Value, fileFields):
			err = c.each(file, value, func(at place, entry string) error {
				if inPlace(entry) {
					return nil // a patch
				}
				return c.local(at, dir, entry)
			})
		case isOne(key.Value, objectFields):
			err = c.objects(file, dir, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isOne compares as Kustomize does, whose fields can be written in any case.
func isOne(name string, list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// inPlace says whether an entry that may be a name or YAML is YAML.
func inPlace(entry string) bool {
	var root yaml.Node
	if err := decodeNode(yaml.NewDecoder(strings.NewReader(entry)), &root); err != nil {
		return false
	}
	return unwrap(&root).Kind == yaml.MappingNode
}

// each calls f with the strings of a list.
func (c *kustomizationCheck) each(file string, list *yaml.Node, f func(place, string) error) error {
	for _, n := range nodes(list) {
		if n.Kind == yaml.ScalarNode {
			if err := f(place{file: file, line: n.Line, column: n.Column}, n.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// objects checks the files that the objects of a list name.
func (c *kustomizationCheck) objects(file, dir string, list *yaml.Node) error {
	for _, item := range nodes(list) {
		for key, value := range fields(item) {
			if key.Value == "<<" {
				at := place{file: file, line: key.Line, column: key.Column}
				return at.errorf(refusedFields["<<"], "<<: is not supported")
			}
			values := nodes(value)
			if isOne(key.Value, []string{"path", "env"}) {
				values = []*yaml.Node{unwrap(value)}
			} else if !isOne(key.Value, []string{"paths", "files", "envs"}) {
				continue
			}
			for _, n := range values {
				entry := n.Value
				if _, name, ok := strings.Cut(entry, "="); ok && strings.EqualFold(key.Value, "files") {
					entry = name
				}
				if n.Kind != yaml.ScalarNode || entry == "" {
					continue
				}
				if err := c.local(place{file: file, line: n.Line, column: n.Column}, dir, entry); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// resource checks what resources: names: a file, or a folder with another
// kustomization.
func (c *kustomizationCheck) resource(at place, dir, entry, field string) error {
	if err := checkLocal(at, dir, entry); err != nil {
		return err
	}
	name := path.Join(dir, entry)
	info, err := c.rec.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c.missing(at, name, entry)
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return c.folder(at, name)
	}
	if strings.EqualFold(field, "components") {
		return at.errorf("name the folder of a kustomization of kind Component", "%s is a file", entry)
	}
	return inside(at, dir, name, entry)
}

// folder checks the kustomization of a folder.
func (c *kustomizationCheck) folder(at place, dir string) error {
	for _, name := range kustomizeFiles {
		file := path.Join(dir, name)
		_, err := c.rec.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return c.file(file)
	}
	return at.errorf("add one there, or name its files", "the folder %s has no %s", dir, kustomizeFiles[0])
}

// plugin checks the configuration of a plugin: only those that are part of
// Kustomize run in its own process.
func (c *kustomizationCheck) plugin(at place, dir, entry string) error {
	if inPlace(entry) {
		return c.configuration(at, dir, []byte(entry), true)
	}
	if err := checkLocal(at, dir, entry); err != nil {
		return err
	}
	name := path.Join(dir, entry)
	info, err := c.rec.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c.missing(at, name, entry)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if err := inside(at, dir, name, entry); err != nil {
			return err
		}
		data, err := c.rec.ReadFile(name)
		if err != nil {
			return err
		}
		return c.configuration(place{file: name}, dir, data, false)
	}
	// The configurations are what that folder builds to. Of its resources
	// each must be one.
	if err := c.folder(at, name); err != nil {
		return err
	}
	for _, kustomization := range kustomizeFiles {
		file := path.Join(name, kustomization)
		data, err := c.rec.ReadFile(file)
		if err != nil {
			continue
		}
		root, err := parseNode(file, data)
		if err != nil || root == nil {
			return err
		}
		for key, value := range fields(root) {
			if !isOne(key.Value, resourceFields) {
				continue
			}
			if err := c.each(file, value, func(at place, entry string) error { return c.plugin(at, name, entry) }); err != nil {
				return err
			}
		}
		break
	}
	return nil
}

// configuration checks the objects that configure plugins.
func (c *kustomizationCheck) configuration(at place, dir string, data []byte, within bool) error {
	d := yaml.NewDecoder(strings.NewReader(strings.TrimPrefix(string(data), "\ufeff")))
	for {
		var root yaml.Node
		if err := decodeNode(d, &root); err != nil {
			return nil // the end, or for Kustomize to say
		}
		object := unwrap(&root)
		if object.Kind != yaml.MappingNode {
			continue
		}
		here := at
		if !within {
			here.line, here.column = object.Line, object.Column
		}
		version, kind := text(field(object, "apiVersion")), text(field(object, "kind"))
		annotations := field(field(object, "metadata"), "annotations")
		switch {
		case field(annotations, "config.kubernetes.io/function") != nil, field(annotations, "config.k8s.io/function") != nil:
			return here.errorf("only the plugins that are part of Kustomize are supported", "%s names a function, that is another program", kind)
		case version != "builtin":
			return here.errorf("only the plugins that are part of Kustomize (apiVersion: builtin) are supported", "%s %s is a plugin of one's own, that is another program", version, kind)
		case kind == "HelmChartInflationGenerator":
			return here.errorf(refusedFields["helmCharts"], "%s is not supported", kind)
		}
		for _, list := range []*yaml.Node{{Kind: yaml.SequenceNode, Content: []*yaml.Node{object}}, field(object, "replacements")} {
			err := c.objects(here.file, dir, list)
			if e, ok := errors.AsType[*Error](err); ok && within {
				e.Line, e.Column = at.line, at.column
			}
			if err != nil {
				return err
			}
		}
	}
}

// local checks the name of a file.
func (c *kustomizationCheck) local(at place, dir, entry string) error {
	if err := checkLocal(at, dir, entry); err != nil {
		return err
	}
	name := path.Join(dir, entry)
	if _, err := c.rec.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return c.missing(at, name, entry)
	} else if err != nil {
		return err
	}
	return inside(at, dir, name, entry)
}

func (c *kustomizationCheck) missing(at place, name, entry string) error {
	if link := linkIn(c.rec.tree, name); link != "" {
		return linkError(link)
	}
	return at.errorf("", "%s: there is no such file or folder", entry)
}

// inside refuses a file that does not lie in or below its kustomization's
// folder, as kubectl does.
func inside(at place, dir, name, entry string) error {
	if dir == "." || strings.HasPrefix(name, dir+"/") {
		return nil
	}
	return at.errorf("add a kustomization.yaml to that folder, and name the folder under resources", "%s: is a file outside of the folder of its kustomization", entry)
}

// remoteName matches what Kustomize takes for a repository or an address, in
// the forms of its documentation and of git: a scheme, a user at a host,
// GitHub by name, a query, git:: in front.
var remoteName = regexp.MustCompile(`(?i)^[a-z][a-z0-9+.-]*:|^[^/]+@[^/]+[:/]|^(www\.)?github\.com[:/]|\?|^git::|//|\.git(/|$)|_git/`)

// checkLocal refuses a name that does not mean a file or folder of the tree.
func checkLocal(at place, dir, entry string) error {
	name := path.Join(dir, entry)
	switch {
	case remoteName.MatchString(entry):
		return at.errorf("copy it into the repository: the same commit must always mean the same objects", "%s: is remote, and a rendering has no network", entry)
	case strings.HasPrefix(entry, "/"):
		return at.errorf("write it relative to the kustomization's folder", "%s: is an absolute path", entry)
	case name == ".." || strings.HasPrefix(name, "../"):
		return at.errorf("", "%s: leads out of the repository", entry)
	case entry == "":
		return at.errorf("", "an empty name")
	}
	return nil
}

// parseNode parses the only document of a file; nil if there is none.
func parseNode(file string, data []byte) (*yaml.Node, error) {
	at := place{file: file}
	if i := invalidUTF8(data); i >= 0 {
		at.line, at.column = position(data, i)
		return nil, at.errorf("save it as UTF-8", "is not UTF-8 text")
	}
	var root yaml.Node
	if err := decodeNode(yaml.NewDecoder(strings.NewReader(strings.TrimPrefix(string(data), "\ufeff"))), &root); err != nil {
		if strings.Contains(err.Error(), "EOF") {
			return nil, at.errorf("", "the file is empty")
		}
		return nil, syntaxError(file, err)
	}
	return unwrap(&root), nil
}

func unwrap(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.DocumentNode || n.Kind == yaml.AliasNode {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		} else {
			n = n.Content[0]
		}
	}
	return n
}

// nodes returns the items of a list, without aliases; a nil or other node has
// none.
func nodes(n *yaml.Node) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n = unwrap(n); n.Kind != yaml.SequenceNode {
		return nil
	}
	list := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		list[i] = unwrap(item)
	}
	return list
}

// fields returns the fields of an object.
func fields(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		if n == nil {
			return
		}
		if n = unwrap(n); n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(unwrap(n.Content[i]), n.Content[i+1]) {
				return
			}
		}
	}
}

// field returns a field of an object, or nil.
func field(n *yaml.Node, name string) *yaml.Node {
	for key, value := range fields(n) {
		if strings.EqualFold(key.Value, name) {
			return unwrap(value)
		}
	}
	return nil
}

func text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return n.Value
}
