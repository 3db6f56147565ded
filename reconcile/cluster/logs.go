package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
)

// maxLog bounds what is read of one container's log.
const maxLog = 1 << 20

// Log is the end of what one container wrote.
type Log struct {
	Container string
	Text      []byte
	Err       error // it could not be read
}

// containersOf names the containers that have something to say: init
// containers only if they did not do their work.
func containersOf(pod *corev1.Pod) []string {
	var names []string
	for _, s := range pod.Status.InitContainerStatuses {
		if t := s.State.Terminated; t == nil && s.State.Running != nil || t != nil && t.ExitCode != 0 {
			names = append(names, s.Name)
		}
	}
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	return names
}

// log reads the end of what a container wrote, or of what it wrote before it was
// started again. The API server can only cut off the end of the last lines, so
// the beginning is cut off here.
func (c *Cluster) log(ctx context.Context, pod *corev1.Pod, container string, previous bool, lines, size int) ([]byte, error) {
	var text []byte
	err := c.send(ctx, func(ctx context.Context) error {
		request := c.client.Get().AbsPath("api", "v1", "namespaces", pod.Namespace, "pods", pod.Name, "log").
			Param("container", container).Param("tailLines", fmt.Sprint(lines)).Param("limitBytes", fmt.Sprint(maxLog))
		if previous {
			request.Param("previous", "true")
		}
		stream, err := request.SetHeader("Accept", "*/*").MaxRetries(0).Stream(ctx)
		if err != nil {
			return err
		}
		defer stream.Close()
		text, err = io.ReadAll(io.LimitReader(stream, maxLog))
		return err
	})
	if err != nil {
		return nil, classify(failure{op: "read the log of container " + container + " of pod " + pod.Name}, err)
	}
	if len(text) == maxLog {
		text = append(text, "…"...) // the API server has cut it, perhaps within a word
	}
	if len(text) > size {
		text = text[len(text)-size:]
		if i := bytes.IndexByte(text, '\n'); i >= 0 && i+1 < len(text) {
			text = text[i+1:] // not half a line
		}
	}
	return text, nil
}
