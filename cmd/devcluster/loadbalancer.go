package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// runLoadBalancers gives each Service of type LoadBalancer the address
// 127.0.0.1. Nothing listens there; a Service without an address would count as
// in progress for ever.
func runLoadBalancers(ctx context.Context, client kubernetes.Interface) error {
	informer := coreinformers.NewServiceInformer(client, metav1.NamespaceAll, 0, cache.Indexers{})
	return loop(ctx, informer, func(ctx context.Context, service *corev1.Service) error {
		if service.Spec.Type != corev1.ServiceTypeLoadBalancer || len(service.Status.LoadBalancer.Ingress) > 0 || service.DeletionTimestamp != nil {
			return nil
		}
		service = service.DeepCopy()
		service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "127.0.0.1"}}
		_, err := client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, service, metav1.UpdateOptions{})
		// In a conflict or after a deletion, the newer object is on its way to us.
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("give service %s/%s an address: %w", service.Namespace, service.Name, err)
		}
		return nil
	})
}
