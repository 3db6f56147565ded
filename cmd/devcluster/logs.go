package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// What a pod's containers wrote is the value of an annotation on it; an empty
// one: nothing. With "-<tag>" behind its name, the annotation holds only for a
// container whose own image has that tag, and wins over the plain one.
const logsAnnotation = "devcluster.pinion.dev/logs"

// newLogServer returns the function that serves containers' logs as a kubelet
// does. Only the API server may ask: who sees which logs is for RBAC to decide.
func newLogServer(p *pki, client kubernetes.Interface, listener net.Listener) (func(context.Context) error, error) {
	certificate, err := tls.LoadX509KeyPair(p.kubeletFile, p.kubeletKeyFile)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	authorities := x509.NewCertPool()
	authorities.AddCert(p.ca)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		pod, err := client.CoreV1().Pods(r.PathValue("namespace")).Get(r.Context(), r.PathValue("pod"), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		text, err := readLog(pod, r.PathValue("container"), r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, text)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "devcluster runs no containers: of what a kubelet serves it has their logs alone", http.StatusNotImplemented)
	})
	server := &http.Server{
		Handler: mux,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    authorities,
			VerifyConnection: func(c tls.ConnectionState) error {
				if user := c.PeerCertificates[0].Subject.CommonName; user != kubeletClient {
					return fmt.Errorf("user %q may not ask the kubelet: ask the API server", user)
				}
				return nil
			},
		},
	}
	return func(ctx context.Context) error {
		closed := make(chan error, 1)
		stop := context.AfterFunc(ctx, func() { closed <- server.Close() })
		err := server.ServeTLS(listener, "", "")
		if !stop() {
			return <-closed
		}
		return err
	}, nil
}

// readLog returns the part of a container's log that is asked for. Of the
// options it knows tailLines, limitBytes and previous; it ends where a log that
// is followed would go on.
func readLog(pod *corev1.Pod, container string, options map[string][]string) (string, error) {
	option := func(name string) string { return strings.Join(options[name], "") }
	if err := hasLog(pod, container, option("previous") == "true"); err != nil {
		return "", err
	}
	text := written(pod, container)
	if lines := option("tailLines"); lines != "" {
		n, err := strconv.Atoi(lines)
		if err != nil || n < 0 {
			return "", fmt.Errorf("tailLines is %q: give a number of lines", lines)
		}
		text = tail(text, n)
	}
	if limit := option("limitBytes"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 {
			return "", fmt.Errorf("limitBytes is %q: give a number of bytes", limit)
		}
		text = text[:min(n, len(text))]
	}
	return text, nil
}

// hasLog complains, in a kubelet's words, about a container that has not run.
func hasLog(pod *corev1.Pod, container string, previous bool) error {
	var status *corev1.ContainerStatus
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == container {
				status = &list[i]
			}
		}
	}
	switch {
	case status == nil:
		return fmt.Errorf("container %q in pod %q is not available", container, pod.Name)
	case previous && status.LastTerminationState.Terminated == nil:
		return fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
	case status.State.Running != nil, status.State.Terminated != nil, status.LastTerminationState.Terminated != nil:
		return nil
	case status.State.Waiting == nil:
		return fmt.Errorf("container %q in pod %q is waiting to start - no logs yet", container, pod.Name)
	case status.State.Waiting.Reason == "ImagePullBackOff":
		return fmt.Errorf("container %q in pod %q is waiting to start: trying and failing to pull image", container, pod.Name)
	default:
		return fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, status.State.Waiting.Reason)
	}
}

// written is all that a container has written, in whole lines.
func written(pod *corev1.Pod, container string) string {
	var image string
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == container {
				image = list[i].Image
			}
		}
	}
	text, ok := pod.Annotations[logsAnnotation+"-"+parseImage(image).tag]
	if !ok {
		text, ok = pod.Annotations[logsAnnotation]
	}
	if !ok {
		text = fmt.Sprintf("devcluster: %s ran %s", container, image)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// tail returns the last n lines.
func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	lines = lines[:len(lines)-1] // what is behind the last newline is no line
	return strings.Join(lines[max(0, len(lines)-n):], "")
}
