package main

import (
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// handing finds in the error the command that hands an environment over: the
// ConfigMap and the patch.
var handing = regexp.MustCompile(`kubectl --namespace (\S+) patch configmap (\S+) --type merge --patch '([^']*)'`)

// An environment has one deployment repository. Another one that has it too is
// refused, and finds everything as it was, until the first one's is handed over
// as the error says.
func TestEnvironmentOfTwoRepositories(t *testing.T) {
	t.Parallel()
	first := newWorld(t, environment("dev", "NAMESPACE", "app")+greeting)
	d := first.daemon(t.TempDir())
	d.line(0, "ready dev/app")
	d.stop()
	before := map[string]string{}
	for _, name := range []string{"app", "beside", "pinion-dev"} {
		before[name] = first.configMap(name).ResourceVersion
	}

	// The other one has less, and says otherwise what the first one says.
	second := newWorld(t, "-- README --\nThe second repository.\n")
	second.namespace = first.namespace
	second.push("the same environment", environment("dev", "NAMESPACE", "app")+
		"-- services/app/app.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {greeting: good evening}\n")
	d = second.daemon(t.TempDir())
	d.line(0, "failed dev/app", "belongs to the repository "+first.remote, "this one is "+second.remote)
	stdout, stderr, code := second.pinion("apply", "dev", "--repo", second.remote)
	m := handing.FindStringSubmatch(stdout + stderr)
	if code == exitOK || m == nil || !strings.Contains(stdout+stderr, first.remote) {
		t.Fatalf("apply ends with %d: %s%s", code, stdout, stderr)
	}
	for name, version := range before {
		if now := first.configMap(name); now.ResourceVersion != version {
			t.Errorf("%s was written by the second repository: %v", name, now.Data)
		}
	}

	mark := d.mark()
	_, err := first.kube.CoreV1().ConfigMaps(m[1]).Patch(t.Context(), m[2], types.MergePatchType, []byte(m[3]), metav1.PatchOptions{})
	first.must(err)
	d.line(mark, "ready dev/app")
	if now := first.configMap("app").Data["greeting"]; now != "good evening" {
		t.Errorf("after the hand-over it says %q", now)
	}
	first.goes(configMaps, "beside")

	// Now it is the first one that has no say.
	app := first.configMap("app").ResourceVersion
	former := first.daemon(t.TempDir())
	former.line(0, "failed dev/app", "belongs to the repository "+second.remote, "this one is "+first.remote)
	if now := first.configMap("app"); now.ResourceVersion != app {
		t.Errorf("the first repository has written after the hand-over: %v", now.Data)
	}
}
