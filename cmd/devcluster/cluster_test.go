package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

var regexpReady = regexp.MustCompile(`^ready (https://127\.0\.0\.1:\d+) kubeconfig (\S+) in \d+\.\ds\n$`)

func TestDeployment(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	deployment := newDeployment("web", 3)
	if _, err := client.AppsV1().Deployments(namespace).Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	managers := make(map[string]bool)
	eventually(t, func(ctx context.Context) error {
		got, err := client.AppsV1().Deployments(namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got.Status.AvailableReplicas != 3 || got.Status.ObservedGeneration != got.Generation {
			return fmt.Errorf("%d replicas are available", got.Status.AvailableReplicas)
		}
		for _, field := range got.ManagedFields {
			managers[field.Manager+" "+field.Subresource] = true
		}
		return nil
	})
	pods, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	addresses := make(map[string]bool)
	for _, pod := range pods.Items {
		addresses[pod.Status.PodIP] = true
		for _, field := range pod.ManagedFields {
			managers[field.Manager+" "+field.Subresource] = true
		}
	}
	if len(addresses) != 3 || addresses[""] {
		t.Errorf("the pods' addresses are %v, want three", slices.Collect(maps.Keys(addresses)))
	}
	for _, want := range []string{"kube-controller-manager status", "kube-controller-manager ", "kubelet status"} {
		if !managers[want] {
			t.Errorf("managedFields name %q, not %q", slices.Sorted(maps.Keys(managers)), want)
		}
	}
}

func TestJob(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	for name, test := range map[string]struct {
		behavior string
		want     batchv1.JobConditionType
	}{
		"good": {run, batchv1.JobComplete},
		"late": {"ready-after=100ms", batchv1.JobComplete},
		"bad":  {fail, batchv1.JobFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := &batchv1.Job{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec:       batchv1.JobSpec{Template: podTemplate(name, test.behavior), BackoffLimit: ptr.To[int32](0)},
			}
			job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
			if _, err := client.BatchV1().Jobs(namespace).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, func(ctx context.Context) error {
				got, err := client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				for _, condition := range got.Status.Conditions {
					switch condition.Type {
					case test.want:
						return nil
					case batchv1.JobComplete, batchv1.JobFailed:
						t.Fatalf("the job is %s, want %s", condition.Type, test.want)
					}
				}
				return fmt.Errorf("the job is not yet %s: %+v", test.want, got.Status)
			})
		})
	}
}

func TestVolumeClaim(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	claims := client.CoreV1().PersistentVolumeClaims(namespace)
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if _, err := claims.Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var volume string
	eventually(t, func(ctx context.Context) error {
		got, err := claims.Get(ctx, "data", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got.Status.Phase != corev1.ClaimBound {
			return fmt.Errorf("the claim is %s", got.Status.Phase)
		}
		volume = got.Spec.VolumeName
		return nil
	})
	if err := claims.Delete(t.Context(), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		return gone(err, "volume "+volume)
	})
}

func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{
			Type:     corev1.ServiceTypeLoadBalancer,
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Port: 80}},
		},
	}
	if _, err := client.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		got, err := client.CoreV1().Services(namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if ingress := got.Status.LoadBalancer.Ingress; len(ingress) != 1 || ingress[0].IP != "127.0.0.1" {
			return fmt.Errorf("the service's addresses are %v", ingress)
		}
		return nil
	})
}

func TestNamespaceTerminates(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	deployment := newDeployment("web", 1)
	deployment.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	if _, err := client.AppsV1().Deployments(namespace).Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		_, err := client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		return gone(err, "namespace "+namespace)
	})
}

func TestRBAC(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	config := clientConfig(t, sharedCluster(t).kubeconfig)

	account := rest.AnonymousClientConfig(config)
	token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account.BearerToken = token.Status.Token
	impersonated := rest.CopyConfig(config)
	impersonated.Impersonate.UserName = "jane"

	clients := map[string]*kubernetes.Clientset{"service account": clientFor(t, account), "impersonated user": clientFor(t, impersonated)}
	for who, client := range clients {
		if _, err := client.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("%s without rights: error is %v, want forbidden", who, err)
		}
	}

	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}},
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects: []rbacv1.Subject{
			{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: namespace},
			{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "jane"},
		},
	}
	_, err = client.RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{})
	if err == nil {
		_, err = client.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		var errs []error
		for who, client := range clients {
			if _, err := client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{}); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", who, err))
			}
		}
		return errors.Join(errs...)
	})
	for who, client := range clients {
		if _, err := client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("%s lists secrets: error is %v, want forbidden", who, err)
		}
	}
}

// sharedNamespace makes a namespace in the shared cluster in which pods can be
// created.
func sharedNamespace(t *testing.T) (*kubernetes.Clientset, string) {
	t.Helper()
	client := clientFor(t, clientConfig(t, sharedCluster(t).kubeconfig))
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts(namespace.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return client, namespace.Name
}

func newDeployment(name string, replicas int32) *appsv1.Deployment {
	template := podTemplate(name, run)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(replicas),
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
			Template: template,
		},
	}
}

func podTemplate(name, behavior string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{"app": name},
			Annotations: map[string]string{behaviorAnnotation: behavior},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "registry.example:5000/shop/web:1.4.2"}}},
	}
}

func createPod(t *testing.T, client kubernetes.Interface, namespace, name string, template corev1.PodTemplateSpec) {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name = name
	if _, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// podIs complains until the pod is as wanted.
func podIs(client kubernetes.Interface, namespace, name string, wanted func(*corev1.Pod) bool) func(context.Context) error {
	return func(ctx context.Context) error {
		pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !wanted(pod) {
			return fmt.Errorf("the pod's status is %+v", pod.Status)
		}
		return nil
	}
}

func gone(err error, what string) error {
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err == nil:
		return fmt.Errorf("%s still exists", what)
	default:
		return err
	}
}

func createConfigMap(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func wantConfigMaps(t *testing.T, client kubernetes.Interface, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
