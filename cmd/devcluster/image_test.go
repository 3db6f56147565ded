package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestImageID(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0a", 32)
	madeUp := func(reference string) string {
		return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(reference)))
	}
	for reference, want := range map[string]string{
		"ghcr.io/acme/web@" + digest:               "ghcr.io/acme/web@" + digest,
		"ghcr.io/acme/web:1.4.2@" + digest:         "ghcr.io/acme/web@" + digest,
		"ghcr.io/acme/web:1.4.2":                   "ghcr.io/acme/web@" + madeUp("ghcr.io/acme/web:1.4.2"),
		"registry.example:5000/shop/web:1.4.2":     "registry.example:5000/shop/web@" + madeUp("registry.example:5000/shop/web:1.4.2"),
		"registry.example:5000/shop/web":           "registry.example:5000/shop/web@" + madeUp("registry.example:5000/shop/web"),
		"registry.example:5000/shop/web@" + digest: "registry.example:5000/shop/web@" + digest,
	} {
		if got := imageID(reference); got != want {
			t.Errorf("the id of %s is %s, want %s", reference, got, want)
		}
	}
}

func TestImageIDInStatus(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	digest := "sha256:" + strings.Repeat("0a", 32)
	for behavior, ran := range map[string]bool{run: true, neverReady: true, crashLoop: true, fail: true, imagePullError: false} {
		t.Run(behavior, func(t *testing.T) {
			t.Parallel()
			template := podTemplate(behavior, behavior)
			template.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: "registry.example/migrate:1"}}
			template.Spec.Containers = append(template.Spec.Containers,
				corev1.Container{Name: "side", Image: "registry.example/side:2@" + digest})
			if behavior == fail {
				template.Spec.RestartPolicy = corev1.RestartPolicyNever
			}
			createPod(t, client, namespace, behavior, template)
			eventually(t, podIs(client, namespace, behavior, func(pod *corev1.Pod) bool {
				return len(pod.Status.ContainerStatuses) == 2 && (behavior != fail || pod.Status.Phase == corev1.PodFailed)
			}))
			pod, err := client.CoreV1().Pods(namespace).Get(t.Context(), behavior, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := []string{imageID("registry.example:5000/shop/web:1.4.2"), "registry.example/side@" + digest}
			if !ran {
				want = []string{"", ""}
			}
			for i, status := range pod.Status.ContainerStatuses {
				if status.ImageID != want[i] {
					t.Errorf("the imageID of %s is %q, want %q", status.Image, status.ImageID, want[i])
				}
			}
			if got, want := pod.Status.InitContainerStatuses[0].ImageID, imageID("registry.example/migrate:1"); got != want {
				t.Errorf("the init container's imageID is %q, want %q", got, want)
			}
		})
	}
}
