package cluster

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// openTimeout is how long the API server may take to begin to answer a watch,
// and listTimeout how long for a page of a list.
const (
	openTimeout = 30 * time.Second
	listTimeout = 2 * time.Minute
)

// item carries one object from the API server's answer to the store. It holds
// only what is kept of the object.
type item struct {
	metav1.TypeMeta
	metav1.ObjectMeta // name, namespace, resource version; of a bookmark, the annotations
	value             any
}

func (i *item) DeepCopyObject() runtime.Object {
	c := *i
	return &c
}

// source lists and watches one resource in one namespace, and reduces each
// object as it comes, so that no more than one page is ever in memory.
type source struct {
	list   func(context.Context, metav1.ListOptions) (runtime.Object, error)
	open   func(context.Context, metav1.ListOptions) (watch.Interface, error)
	reduce func(runtime.Object) any
	// failed and opened are told how each list and watch went; ended, that a
	// watch's stream did.
	failed func(error)
	opened func()
	ended  func()
}

// full reads whole objects, partial their metadata only.
func (c *Cluster) full(s *source, gvr schema.GroupVersionResource, namespace, selector string) *source {
	r := c.dynamic.Resource(gvr).Namespace(namespace)
	s.list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		o.LabelSelector = selector
		return r.List(ctx, o)
	}
	s.open = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		o.LabelSelector = selector
		return r.Watch(ctx, o)
	}
	return s
}

func (c *Cluster) partial(s *source, gvr schema.GroupVersionResource, namespace, selector string) *source {
	r := c.metadata.Resource(gvr).Namespace(namespace)
	s.list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		o.LabelSelector = selector
		return r.List(ctx, o)
	}
	s.open = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		o.LabelSelector = selector
		return r.Watch(ctx, o)
	}
	return s
}

// List and Watch are what a reflector without a context would call.
func (s *source) List(o metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), o)
}

func (s *source) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), o)
}

// ListWithContext lists, and takes note of how it went.
func (s *source) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list, err := s.page(ctx, o)
	if err != nil {
		s.failed(err)
		return nil, err
	}
	return list, nil
}

// page lists, and reduces each object.
func (s *source) page(ctx context.Context, o metav1.ListOptions) (*metainternal.List, error) {
	list, err := s.list(ctx, o)
	if err != nil {
		return nil, err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	reduced := &metainternal.List{ListMeta: metav1.ListMeta{
		ResourceVersion: m.GetResourceVersion(), Continue: m.GetContinue(), RemainingItemCount: m.GetRemainingItemCount(),
	}}
	add := func(o runtime.Object) error {
		i, err := s.item(o)
		if err == nil {
			reduced.Items = append(reduced.Items, i)
		}
		return err
	}
	switch list := list.(type) {
	case *unstructured.UnstructuredList:
		for i := range list.Items {
			if err == nil {
				err = add(&list.Items[i])
			}
			list.Items[i].Object = nil
		}
	case *metav1.PartialObjectMetadataList:
		for i := range list.Items {
			if err == nil {
				err = add(&list.Items[i])
			}
		}
	default:
		err = meta.EachListItem(list, add)
	}
	if err != nil {
		return nil, err
	}
	return reduced, nil
}

// WatchWithContext opens a watch, and takes note of how it goes.
func (s *source) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(openTimeout, cancel)
	w, err := s.open(ctx, o)
	if !late.Stop() && err == nil {
		w.Stop()
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		s.failed(err)
		return nil, err
	}
	if o.SendInitialEvents == nil || !*o.SendInitialEvents {
		s.opened() // else the list that it begins with has yet to come
	}
	t := &tap{source: s, in: w, out: make(chan watch.Event), cancel: cancel, done: ctx.Done()}
	go t.run()
	return t, nil
}

func (s *source) item(o runtime.Object) (*item, error) {
	m, err := meta.Accessor(o)
	if err != nil {
		return nil, err
	}
	i := &item{}
	i.Name, i.Namespace, i.ResourceVersion = m.GetName(), m.GetNamespace(), m.GetResourceVersion()
	i.value = s.reduce(o)
	return i, nil
}

// tap passes a watch's events on, each reduced, until its stream ends.
type tap struct {
	source *source
	in     watch.Interface
	out    chan watch.Event
	cancel context.CancelFunc
	done   <-chan struct{}
}

func (t *tap) Stop()                          { t.cancel(); t.in.Stop() }
func (t *tap) ResultChan() <-chan watch.Event { return t.out }

func (t *tap) run() {
	defer close(t.out)
	defer t.source.ended()
	for e := range t.in.ResultChan() {
		switch e.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			i, err := t.source.item(e.Object)
			if err != nil {
				continue
			}
			e.Object = i
		case watch.Bookmark:
			m, err := meta.Accessor(e.Object)
			if err != nil {
				continue
			}
			i := &item{}
			i.ResourceVersion, i.Annotations = m.GetResourceVersion(), m.GetAnnotations()
			e.Object = i
		}
		select {
		case t.out <- e:
		case <-t.done:
			return
		}
	}
}
