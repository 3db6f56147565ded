package main

import (
	"context"
	"strings"
	"testing"
)

// comesFrom checks which commit a Deployment names.
func (w *world) comesFrom(name, commit string) {
	w.Helper()
	x, why := w.deployment(w.Context(), name)
	if x == nil {
		w.Fatal(why)
	}
	if got := x.Annotations["pinion.dev/commit"]; got != commit {
		w.Errorf("%s comes from %.12s, want %.12s", name, got, commit)
	}
}

// edit changes text in a file, and commits that without pushing it.
func (w *world) edit(file, old, new string) string {
	w.Helper()
	w.git("remote", "set-url", "--push", "origin", w.clone+"/nowhere.git")
	if w.git("ls-files", "nowhere.git") == "" {
		w.git("init", "-q", "--bare", "nowhere.git")
		w.write("-- .git/info/exclude --\nnowhere.git\n")
	}
	id := w.replace(file, old, new)
	w.git("remote", "set-url", "--push", "origin", w.remote)
	return id
}

func TestCommitThatADeploymentComesFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")

	// Several commits in one push.
	api := w.edit("environments/dev.yaml", "api:1.0.0", "api:1.1.0")
	web := w.edit("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	last := w.push("a word", "-- README.md --\nhello\n")
	w.runs("api", "registry.example/api:1.1.0")
	w.runs("web", "registry.example/web:1.1.0")
	d.line(0, "commit "+last[:12])
	w.comesFrom("api", api)
	w.comesFrom("web", web)

	// Two pushes in quick succession.
	w.replace("environments/dev.yaml", "web:1.1.0", "web:1.2.0")
	second := w.replace("environments/dev.yaml", "web:1.2.0", "web:1.3.0")
	w.runs("web", "registry.example/web:1.3.0")
	w.comesFrom("web", second)
	w.comesFrom("api", api)
	d.line(0, "ready dev/web 1.3.0")

	// A change of manifests that comes to the same objects.
	writes := func() float64 {
		return d.metric("pinion_kubernetes_requests_total", `"apply"`) + d.metric("pinion_kubernetes_requests_total", `"dry-run"`)
	}
	mark, before := d.mark(), writes()
	same := w.replace("services/api/api.yaml", "data: {greeting: hello}", "data: {greeting: \"hello\"} # as ever")
	d.line(mark, "commit "+same[:12])
	w.replace("environments/dev.yaml", "web:1.3.0", "web:1.4.0")
	w.runs("web", "registry.example/web:1.4.0")
	d.line(mark, "ready dev/web 1.4.0")
	if got := writes() - before; got != 2 {
		t.Errorf("%v requests, want a dry run and an apply of web", got)
	}
	w.comesFrom("api", api)
	d.never(mark, "applied dev/api")

	// A daemon that knows nothing, and a clone, come to the same.
	w.replace("services/api/api.yaml", "greeting: \"hello\"", "greeting: bye")
	greeting := w.git("rev-parse", "HEAD")
	d.line(mark, "applied dev/api")
	w.comesFrom("api", greeting)
}

func TestCommitPreemptsARollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(twoServices, "behavior-0.0.0-broken: image-pull-error", "behavior-2.0.0: never-ready", 1))
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	w.replace("environments/dev.yaml", "api:1.0.0", "api:2.0.0")
	d.line(0, "progressing dev/api 2.0.0")
	third := w.replace("environments/dev.yaml", "api:2.0.0", "api:3.0.0")
	w.runs("api", "registry.example/api:3.0.0")
	d.line(0, "ready dev/api 3.0.0")
	d.never(0, "failed")
	w.comesFrom("api", third)
}

func TestCommitOfManifests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	first := w.git("rev-parse", "HEAD")
	w.replace("services/api/api.yaml", "greeting: hello", "greeting: bye")
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	if got := w.configMap("api").Data["greeting"]; got != "bye" {
		t.Fatalf("greeting is %q", got)
	}
	// The manifests of the first commit, with the pins of now.
	w.edit("environments/dev.yaml", "api:1.0.0", "api:1.1.0")
	pinned := w.replace("environments/dev.yaml", "pins:", "manifests:\n  api: "+first+"\npins:")
	w.runs("api", "registry.example/api:1.1.0")
	w.until("the greeting of the first commit", func(context.Context) string {
		if got := w.configMap("api").Data["greeting"]; got != "hello" {
			return "it is " + got
		}
		return ""
	})
	w.comesFrom("api", pinned)
	d.line(0, "ready dev/api 1.1.0")
	// A newer change of the manifests is not for this environment.
	mark := d.mark()
	newer := w.replace("services/api/api.yaml", "greeting: bye", "greeting: again")
	d.line(mark, "commit "+newer[:12])
	web := w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	w.runs("web", "registry.example/web:1.1.0")
	w.comesFrom("web", web)
	w.comesFrom("api", pinned)
	d.never(mark, "applied dev/api")

	// Commits that can't be had.
	w.git("checkout", "-q", "-b", "aside")
	aside := w.edit("services/api/api.yaml", "greeting: again", "greeting: aside")
	w.git("push", "-q", "origin", "aside")
	w.git("checkout", "-q", "main")
	mark = d.mark()
	w.replace("environments/dev.yaml", "api: "+first, "api: "+aside)
	d.line(mark, "environments/dev.yaml:6:8", "manifests of service api", aside[:12])
	unknown := strings.Repeat("12ab", 10)
	w.replace("environments/dev.yaml", "api: "+aside, "api: "+unknown)
	d.line(mark, "environments/dev.yaml:6:8", "manifests of service api", unknown[:12])
	if got := w.configMap("api").Data["greeting"]; got != "hello" {
		t.Errorf("greeting is %q", got)
	}
	w.replace("environments/dev.yaml", "manifests:\n  api: "+unknown+"\n", "")
	w.until("the greeting of the newest commit", func(context.Context) string {
		if got := w.configMap("api").Data["greeting"]; got != "again" {
			return "it is " + got
		}
		return ""
	})
}
