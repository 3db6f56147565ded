package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
	"sigs.k8s.io/kwok/pkg/utils/gotpl"
)

const (
	// A documentation address (RFC 5737): what has the node's own address must
	// not be on loopback, or the API server refuses it as an endpoint.
	nodeIP = "192.0.2.1"
	podIPs = "10.244.0.1/16"
)

// newKubelet returns the function that runs KWOK for every node there is. It
// takes no leases for the nodes: nobody competes for them.
func newKubelet(admin access, port int, log io.Writer) (func(context.Context) error, error) {
	config := admin.config("kubelet")
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	stages, err := kubeletStages()
	if err != nil {
		return nil, err
	}
	kubelet, err := controllers.NewController(controllers.Config{
		ID:                        "devcluster",
		TypedClient:               client,
		DynamicClient:             dynamicClient,
		RESTClient:                client.CoreV1().RESTClient(),
		ManageAllNodes:            true,
		NodeIP:                    nodeIP,
		NodePort:                  port,
		CIDR:                      podIPs,
		LocalStages:               stages,
		FuncMap:                   gotpl.FuncMap{"ImageID": imageID},
		NodePlayStageParallelism:  1,
		PodPlayStageParallelism:   4,
		PodsOnNodeSyncParallelism: 1,
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		ctx = kwoklog.NewContext(ctx, kwoklog.NewLogger(log, kwoklog.LevelWarn))
		if err := kubelet.Start(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}, nil
}

// createNodes adds the nodes node-0 to node-(n-1) where they are missing, and
// tells all nodes the port of their kubelet, which is another one at each start.
//
// A node has room for whatever is asked of it, also where KWOK's own would have
// none: no disk.
func createNodes(ctx context.Context, client kubernetes.Interface, n, port int) error {
	room := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("1k"),
		corev1.ResourceMemory:           resource.MustParse("1Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("1M"),
	}
	for i := range n {
		name := fmt.Sprintf("node-%d", i)
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name: name,
				Labels: map[string]string{
					corev1.LabelHostname:   name,
					corev1.LabelOSStable:   "linux",
					corev1.LabelArchStable: runtime.GOARCH,
				},
			},
			Status: corev1.NodeStatus{
				Capacity:    room,
				Allocatable: room,
				Addresses: []corev1.NodeAddress{
					{Type: corev1.NodeInternalIP, Address: nodeIP},
					{Type: corev1.NodeHostName, Address: "127.0.0.1"},
				},
			},
		}
		if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create node %s: %w", name, err)
		}
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	patch := fmt.Appendf(nil, `{"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": %d}}}}`, port)
	for _, node := range nodes.Items {
		if _, err := client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			return fmt.Errorf("tell node %s its kubelet's port: %w", node.Name, err)
		}
	}
	return nil
}
