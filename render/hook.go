package render

// Hook is a Job that is run once for each deployment of its service.
type Hook struct {
	When string `json:"when"` // HookBefore or HookAfter
	Object
}

// NeverReplaced tells whether deleting an object takes along what no commit can
// bring back, so that it is not deleted in order to be made anew, whoever says
// that it may be.
func NeverReplaced(r Ref) bool {
	switch r.Group {
	case "":
		return r.Kind == "Namespace" || r.Kind == "PersistentVolume" || r.Kind == "PersistentVolumeClaim"
	case "apiextensions.k8s.io":
		return r.Kind == "CustomResourceDefinition"
	}
	return false
}

// All returns the objects and the hooks, as they were rendered.
func (r *Result) All() []Object {
	if len(r.Hooks) == 0 {
		return r.Objects
	}
	all := make([]Object, 0, len(r.Objects)+len(r.Hooks))
	all = append(all, r.Objects...)
	for _, h := range r.Hooks {
		all = append(all, h.Object)
	}
	return all
}
