package main

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

// follower knows one thing of each object of a kind, by a watch.
type follower struct {
	cancel context.CancelFunc
	moved  chan struct{} // capacity one: look again

	mu     sync.Mutex
	things map[string]string // guarded by mu; by the objects' names
	ended  error             // guarded by mu
}

// follow begins to watch the objects of a kind in the namespace; of says what is
// to be known of one.
func (c *controlPlane) follow(ctx context.Context, kind string, of func(*unstructured.Unstructured) string) (*follower, error) {
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w, err := client.Resource(resources[kind]).Namespace("bench").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		cancel()
		return nil, err
	}
	f := &follower{cancel: cancel, moved: make(chan struct{}, 1), things: map[string]string{}}
	go func() {
		for ev := range w.ResultChan() {
			if u, ok := ev.Object.(*unstructured.Unstructured); ok {
				f.mu.Lock()
				f.things[u.GetName()] = of(u)
				f.mu.Unlock()
			}
			f.wake()
		}
		f.mu.Lock()
		f.ended = fmt.Errorf("the watch of kind %s ended", kind)
		f.mu.Unlock()
		f.wake()
	}()
	return f, nil
}

func (f *follower) wake() {
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

func (f *follower) stop() { f.cancel() }

// until waits until of n objects this is known.
func (f *follower) until(ctx context.Context, n int, thing string) error {
	for {
		f.mu.Lock()
		have, ended := 0, f.ended
		for _, t := range f.things {
			if t == thing {
				have++
			}
		}
		f.mu.Unlock()
		switch {
		case have >= n:
			return nil
		case ended != nil:
			return ended
		}
		select {
		case <-f.moved:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d objects became %q in time: %w", have, n, thing, ctx.Err())
		}
	}
}
