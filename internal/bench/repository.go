package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// publish writes files into a new clone, and pushes them to a new bare remote as
// one commit.
func (b *bench) publish(ctx context.Context, remote, clone string, files map[string]string) error {
	for path, text := range files {
		path = filepath.Join(clone, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "-q", "--bare", "--initial-branch=main", remote},
		{"-C", clone, "init", "-q", "--initial-branch=main"},
		{"-C", clone, "add", "."},
		{"-C", clone, "commit", "-q", "-m", "All services"},
		{"-C", clone, "remote", "add", "origin", remote},
		{"-C", clone, "push", "-q", "origin", "main"},
	} {
		if err := b.git(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// makeRepository writes the deployment repository, and returns a bare remote
// of it and a clone.
func (b *bench) makeRepository(ctx context.Context) (remote, clone string, err error) {
	remote, clone = b.path("remote.git"), b.path("clone")
	files := map[string]string{"environments/bench.yaml": b.environment(nil)}
	for i := range b.services {
		name := service(i)
		files["services/"+name+"/service.yaml"] = "apiVersion: pinion.dev/v1\nkind: Service\n"
		files["services/"+name+"/kustomization.yaml"] = "resources:\n- objects.yaml\n"
		files["services/"+name+"/objects.yaml"] = fmt.Sprintf(objectsYAML, name)
	}
	return remote, clone, b.publish(ctx, remote, clone, files)
}

func service(i int) string { return fmt.Sprintf("service-%04d", i) }

// environment is the environment's file; versions are those of the services
// that are not at 1.0.0.
func (b *bench) environment(versions map[int]string) string {
	var s strings.Builder
	s.WriteString("apiVersion: pinion.dev/v1\nkind: Environment\ncluster: default\nnamespace: bench\npins:\n")
	for i := range b.services {
		v := "1.0.0"
		if versions[i] != "" {
			v = versions[i]
		}
		fmt.Fprintf(&s, "  %s:\n    image: registry.example/%s:%s\n", service(i), service(i), v)
	}
	return s.String() + b.more
}

const objectsYAML = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
spec:
  replicas: 0
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      serviceAccountName: %[1]s
      containers:
      - name: main
        image: %[1]s
        ports:
        - containerPort: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: %[1]s
spec:
  selector: {app: %[1]s}
  ports:
  - port: 80
    targetPort: 8080
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: %[1]s
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %[1]s
spec:
  rules:
  - host: %[1]s.example
    http:
      paths:
      - path: /
        pathType: Prefix
        backend:
          service:
            name: %[1]s
            port: {number: 80}
`

// git runs git with an identity of its own.
func (b *bench) git(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_NAME=Bench", "GIT_AUTHOR_EMAIL=bench@shop.example", "GIT_COMMITTER_NAME=Bench", "GIT_COMMITTER_EMAIL=bench@shop.example")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// commit writes a file of the clone, and commits it.
func (b *bench) commit(ctx context.Context, clone, path, text string) error {
	if err := os.WriteFile(filepath.Join(clone, path), []byte(text), 0o644); err != nil {
		return err
	}
	if err := b.git(ctx, "-C", clone, "add", path); err != nil {
		return err
	}
	return b.git(ctx, "-C", clone, "commit", "-q", "-m", "Change "+path)
}

// object is a rendered object, as it is sent.
type object struct {
	APIVersion, Kind string
	Metadata         struct{ Name, Namespace string }

	data []byte
}

// rendered returns all objects, as pinion renders them.
func (b *bench) rendered(ctx context.Context, clone string) ([]object, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "pinion"), "render", "bench", "--repo", clone, "--rev", "HEAD", "-o", "json")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pinion render: %w", err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(out, &raw); err != nil {
		return nil, err
	}
	objects := make([]object, len(raw))
	for i, r := range raw {
		if err := json.Unmarshal(r, &objects[i]); err != nil {
			return nil, err
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, r); err != nil {
			return nil, err
		}
		objects[i].data = compact.Bytes()
	}
	return objects, nil
}
