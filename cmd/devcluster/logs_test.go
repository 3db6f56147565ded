package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	template := podTemplate("talker", run)
	template.Annotations[logsAnnotation] = "one\ntwo\nthree"
	template.Annotations[logsAnnotation+"-9.9.9"] = "four\n"
	template.Annotations[logsAnnotation+"-0"] = ""
	template.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: "registry.example/migrate:9.9.9"}}
	template.Spec.Containers = append(template.Spec.Containers,
		corev1.Container{Name: "side", Image: "registry.example/side:9.9.9"},
		corev1.Container{Name: "mute", Image: "registry.example/mute:0"})
	createPod(t, client, namespace, "talker", template)
	createPod(t, client, namespace, "plain", podTemplate("plain", run))
	for _, name := range []string{"talker", "plain"} {
		eventually(t, podIs(client, namespace, name, isReady))
	}
	for _, test := range []struct {
		pod     string
		options corev1.PodLogOptions
		want    string
	}{
		{"plain", corev1.PodLogOptions{}, "devcluster: web ran registry.example:5000/shop/web:1.4.2\n"},
		{"talker", corev1.PodLogOptions{Container: "web"}, "one\ntwo\nthree\n"},
		{"talker", corev1.PodLogOptions{Container: "web", Follow: true}, "one\ntwo\nthree\n"},
		{"talker", corev1.PodLogOptions{Container: "web", TailLines: ptr.To[int64](2)}, "two\nthree\n"},
		{"talker", corev1.PodLogOptions{Container: "web", TailLines: ptr.To[int64](0)}, ""},
		{"talker", corev1.PodLogOptions{Container: "web", TailLines: ptr.To[int64](100)}, "one\ntwo\nthree\n"},
		{"talker", corev1.PodLogOptions{Container: "web", TailLines: ptr.To[int64](2), LimitBytes: ptr.To[int64](6)}, "two\nth"},
		{"talker", corev1.PodLogOptions{Container: "side"}, "four\n"},
		{"talker", corev1.PodLogOptions{Container: "mute"}, ""},
		{"talker", corev1.PodLogOptions{Container: "mute", TailLines: ptr.To[int64](1)}, ""},
		{"talker", corev1.PodLogOptions{Container: "migrate"}, "four\n"},
	} {
		got, err := logs(t, client, namespace, test.pod, test.options)
		if err != nil || got != test.want {
			t.Errorf("the logs of %s, %+v, are %q, %v; want %q", test.pod, test.options, got, err, test.want)
		}
	}
}

// What has not run has no logs.
func TestNoLogs(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	createPod(t, client, namespace, "unpulled", podTemplate("unpulled", imagePullError))
	eventually(t, podIs(client, namespace, "unpulled", notReady))
	createPod(t, client, namespace, "crashed", podTemplate("crashed", crashLoop))
	eventually(t, podIs(client, namespace, "crashed", notReady))
	createPod(t, client, namespace, "fine", podTemplate("fine", run))
	eventually(t, podIs(client, namespace, "fine", isReady))

	if got, err := logs(t, client, namespace, "crashed", corev1.PodLogOptions{}); err != nil || !strings.Contains(got, "web ran") {
		t.Errorf("the logs of a container that has crashed are %q, %v", got, err)
	}
	if got, err := logs(t, client, namespace, "crashed", corev1.PodLogOptions{Previous: true}); err != nil || !strings.Contains(got, "web ran") {
		t.Errorf("the logs of before the crash are %q, %v", got, err)
	}
	if _, err := logs(t, client, namespace, "unpulled", corev1.PodLogOptions{}); !apierrors.IsBadRequest(err) ||
		!strings.Contains(err.Error(), "trying and failing to pull image") {
		t.Errorf("without an image the error is %v", err)
	}
	if _, err := logs(t, client, namespace, "fine", corev1.PodLogOptions{Previous: true}); !apierrors.IsBadRequest(err) ||
		!strings.Contains(err.Error(), "previous terminated container") {
		t.Errorf("without a crash the error is %v", err)
	}
}

// What else a kubelet serves is refused at once, and with the reason.
func TestExecIsRefused(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	createPod(t, client, namespace, "web", podTemplate("web", run))
	eventually(t, podIs(client, namespace, "web", isReady))
	url := client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name("web").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"true"}, Stdout: true}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewSPDYExecutor(clientConfig(t, sharedCluster(t).kubeconfig), http.MethodPost, url)
	if err != nil {
		t.Fatal(err)
	}
	err = executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "devcluster runs no containers") {
		t.Errorf("error is %v, want the reason", err)
	}
}

func TestLogsOfJob(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	for name, test := range map[string]struct {
		behavior string
		deadline *int64
		want     batchv1.JobConditionType
		reason   string
		written  string
	}{
		"good": {behavior: run, want: batchv1.JobComplete, reason: batchv1.JobReasonCompletionsReached, written: "7 passed\n"},
		"bad":  {behavior: fail, want: batchv1.JobFailed, reason: batchv1.JobReasonBackoffLimitExceeded, written: "7 passed\n"},
		"slow": {behavior: neverReady, deadline: ptr.To[int64](1), want: batchv1.JobFailed, reason: batchv1.JobReasonDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := &batchv1.Job{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: batchv1.JobSpec{
					Template:              podTemplate(name, test.behavior),
					BackoffLimit:          ptr.To[int32](0),
					ActiveDeadlineSeconds: test.deadline,
				},
			}
			job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
			job.Spec.Template.Annotations[logsAnnotation] = "7 passed"
			if _, err := client.BatchV1().Jobs(namespace).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, func(ctx context.Context) error {
				got, err := client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				for _, condition := range got.Status.Conditions {
					if condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed {
						if condition.Type != test.want || condition.Reason != test.reason {
							t.Fatalf("the job is %s: %s, want %s: %s", condition.Type, condition.Reason, test.want, test.reason)
						}
						return nil
					}
				}
				return fmt.Errorf("the job has not ended: %+v", got.Status)
			})
			pods, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
			if err != nil {
				t.Fatal(err)
			}
			if test.written == "" {
				if len(pods.Items) > 0 {
					t.Errorf("%d pods have outlived the deadline", len(pods.Items))
				}
				return
			}
			if len(pods.Items) != 1 {
				t.Fatalf("the job has %d pods, want 1", len(pods.Items))
			}
			if got, err := logs(t, client, namespace, pods.Items[0].Name, corev1.PodLogOptions{TailLines: ptr.To[int64](10)}); err != nil || got != test.written {
				t.Errorf("the logs are %q, %v; want %q", got, err, test.written)
			}
		})
	}
}

// Who may read logs is for the API server to decide, so nobody else may ask.
func TestLogsAreForTheAPIServer(t *testing.T) {
	t.Parallel()
	client, _ := sharedNamespace(t)
	config := clientConfig(t, sharedCluster(t).kubeconfig)
	node, err := client.CoreV1().Nodes().Get(t.Context(), "node-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("https://127.0.0.1:%d/containerLogs/default/web/web", node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(config.CAData)
	admin, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	for who, certificates := range map[string][]tls.Certificate{"nobody": nil, "the administrator": {admin}} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities, Certificates: certificates}}
		t.Cleanup(transport.CloseIdleConnections)
		response, err := (&http.Client{Transport: transport}).Get(address)
		if err == nil {
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			t.Errorf("%s was answered %s: %s", who, response.Status, body)
		} else if refused := new(net.OpError); !errors.As(err, &refused) || refused.Op != "remote error" {
			t.Errorf("%s: error is %v, want that of a handshake that was refused", who, err)
		}
	}
}

func logs(t *testing.T, client kubernetes.Interface, namespace, pod string, options corev1.PodLogOptions) (string, error) {
	t.Helper()
	// Not DoRaw: its error has lost what the server said.
	stream, err := client.CoreV1().Pods(namespace).GetLogs(pod, &options).Stream(t.Context())
	if err != nil {
		return "", err
	}
	defer stream.Close()
	text, err := io.ReadAll(stream)
	return string(text), err
}
