package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// applications are all objects that the applications have, and the account that
// deploys them.
func (b *bench) applications() []object {
	objects := []object{{Kind: "ServiceAccount"}}
	for _, kind := range []string{"Deployment", "Service", "ServiceAccount", "Ingress"} {
		objects = append(objects, slices.Repeat([]object{{Kind: kind}}, b.services)...)
	}
	return objects
}

func application(i int) string { return fmt.Sprintf("podinfo-%dapp", i) }

// manifests are those of one application: what Flux's benchmark deploys
// (github.com/fluxcd/flux-benchmark, manifests/podinfo), where they are one
// package with variables for the index, the replicas and the CPU.
func manifests(index, replicas, cpu string) string {
	return strings.NewReplacer("INDEX", index, "REPLICAS", replicas, "CPU", cpu).Replace(podinfo)
}

const podinfo = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: "podinfo-INDEX"
  labels: {app.kubernetes.io/name: "podinfo-INDEX", app.kubernetes.io/version: "6.5.3"}
---
apiVersion: v1
kind: Service
metadata:
  name: "podinfo-INDEX"
  labels: {app.kubernetes.io/name: "podinfo-INDEX", app.kubernetes.io/version: "6.5.3"}
spec:
  type: ClusterIP
  ports:
  - {name: http, port: 9898, targetPort: http, protocol: TCP}
  - {name: grpc, port: 9999, targetPort: grpc, protocol: TCP}
  selector: {app.kubernetes.io/name: "podinfo-INDEX"}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "podinfo-INDEX"
  labels: {app.kubernetes.io/name: "podinfo-INDEX", app.kubernetes.io/version: "6.5.3"}
spec:
  replicas: REPLICAS
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  selector:
    matchLabels: {app.kubernetes.io/name: "podinfo-INDEX"}
  template:
    metadata:
      labels: {app.kubernetes.io/name: "podinfo-INDEX"}
      annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9898"}
    spec:
      terminationGracePeriodSeconds: 30
      serviceAccountName: "podinfo-INDEX"
      containers:
      - name: podinfo
        image: ghcr.io/stefanprodan/podinfo:6.5.3
        imagePullPolicy: IfNotPresent
        command:
        - ./podinfo
        - --port=9898
        - --cert-path=/data/cert
        - --port-metrics=9797
        - --grpc-port=9999
        - --grpc-service-name=podinfo
        - --level=info
        - --random-delay=false
        - --random-error=false
        env:
        - {name: PODINFO_UI_COLOR, value: "#34577c"}
        ports:
        - {name: http, containerPort: 9898, protocol: TCP}
        - {name: http-metrics, containerPort: 9797, protocol: TCP}
        - {name: grpc, containerPort: 9999, protocol: TCP}
        livenessProbe:
          exec: {command: [podcli, check, http, "localhost:9898/healthz"]}
          initialDelaySeconds: 1
          timeoutSeconds: 5
          failureThreshold: 3
          successThreshold: 1
          periodSeconds: 10
        readinessProbe:
          exec: {command: [podcli, check, http, "localhost:9898/readyz"]}
          initialDelaySeconds: 1
          timeoutSeconds: 5
          failureThreshold: 3
          successThreshold: 1
          periodSeconds: 10
        volumeMounts:
        - {name: data, mountPath: /data}
        resources:
          requests: {cpu: "CPU", memory: 16Mi}
      volumes:
      - {name: data, emptyDir: {}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: "podinfo-INDEX"
  labels: {app.kubernetes.io/name: "podinfo-INDEX", app.kubernetes.io/version: "6.5.3"}
spec:
  ingressClassName: nginx
  rules:
  - host: "podinfo-INDEX.local"
    http:
      paths:
      - path: /
        pathType: ImplementationSpecific
        backend:
          service: {name: "podinfo-INDEX", port: {number: 9898}}
`

// publishApplications makes the deployment repository that both read.
func (b *bench) publishApplications(ctx context.Context, remote, clone, cpu string) error {
	var pins strings.Builder
	files := map[string]string{}
	for i := range b.services {
		name := application(i)
		files["services/"+name+"/service.yaml"] = "apiVersion: pinion.dev/v1\nkind: Service\n"
		files[applicationFile(i)] = manifests(fmt.Sprintf("%dapp", i), "0", cpu)
		fmt.Fprintf(&pins, "  %s:\n    image: ghcr.io/stefanprodan/podinfo:6.5.3\n", name)
	}
	files["environments/bench.yaml"] = "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: bench\nserviceAccount: " + deployer + "\npins:\n" + pins.String()
	return b.publish(ctx, remote, clone, files)
}

func applicationFile(i int) string { return "services/" + application(i) + "/podinfo.yaml" }

// commitApplications commits other manifests of these applications, or of all if
// there are none, and returns how many.
func (b *bench) commitApplications(ctx context.Context, clone, cpu string, applications []int) (int, error) {
	if len(applications) == 0 {
		for i := range b.services {
			applications = append(applications, i)
		}
	}
	for _, i := range applications {
		if err := os.WriteFile(filepath.Join(clone, applicationFile(i)), []byte(manifests(fmt.Sprintf("%dapp", i), "0", cpu)), 0o644); err != nil {
			return 0, err
		}
	}
	return len(applications), b.git(ctx, "-C", clone, "commit", "-q", "-a", "-m", "CPU "+cpu)
}
