package registry_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/registry"
)

var notices = map[string][]string{
	// CNCF Distribution
	`{"events":[{"id":"1","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aa","repository":"acme/web","tag":"1.2.3"},"request":{"host":"registry.example:5000","method":"PUT"}}]}`: {"acme/web", "registry.example:5000/acme/web"},
	`{"events":[{"action":"push","target":{"repository":"acme/web"}},{"action":"pull","target":{"repository":"acme/web","tag":"1.2.3"}},{"action":"delete","target":{"repository":"acme/web","tag":"1.2.3"}}]}`:                        nil,
	// Harbor
	`{"type":"PUSH_ARTIFACT","occur_at":1,"event_data":{"resources":[{"digest":"sha256:aa","tag":"1.2.3","resource_url":"Harbor.example:8443/acme/web:1.2.3"},{"resource_url":"harbor.example/acme/web@sha256:aa"}],"repository":{"name":"web","namespace":"acme","repo_full_name":"acme/web"}}}`: {"acme/web", "harbor.example/acme/web", "harbor.example:8443/acme/web"},
	`{"type":"PULL_ARTIFACT","event_data":{"resources":[{"resource_url":"harbor.example/acme/web:1.2.3"}],"repository":{"repo_full_name":"acme/web"}}}`:                                                                                                                                           nil,
	// Quay
	`{"name":"web","repository":"acme/web","namespace":"acme","docker_url":"quay.io/acme/web","updated_tags":["1.2.3"]}`: {"acme/web", "quay.io/acme/web"},
	`{"name":"web","repository":"acme/web","docker_url":"quay.io/acme/web","trigger_kind":"github"}`:                     nil,
	// Docker Hub
	`{"push_data":{"tag":"1.2.3"},"repository":{"repo_name":"acme/web","namespace":"acme","name":"web"}}`: {"acme/web"},
	// GitHub
	`{"action":"published","package":{"name":"web","namespace":"acme","package_type":"CONTAINER","owner":{"login":"Acme"}},"repository":{"full_name":"acme/src"}}`: {"ghcr.io/acme/web"},
	`{"action":"published","registry_package":{"name":"web","namespace":"acme"}}`:                                                                                  {"ghcr.io/acme/web"},
	// none of these
	`{"zen":"Keep it logically awesome."}`: nil,
	`[]`:                                   nil,
	`{"events":[null],"package":null,"repository":[1,{}]}`: nil,
	`{"events":{"action":"push"}}`:                         nil,
	``:                                                     nil,
}

func TestNotice(t *testing.T) {
	for body, want := range notices {
		if got := registry.Notice([]byte(body)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func FuzzNotice(f *testing.F) {
	for body := range notices {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, n := range registry.Notice(body) {
			if n == "" || n != strings.ToLower(n) {
				t.Fatalf("%q is no repository", n)
			}
		}
	})
}
