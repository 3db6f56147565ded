package main

import (
	"runtime/debug"
	"testing"
)

func TestBuildOf(t *testing.T) {
	recorded := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "1111111111111111111111111111111111111111"}, {Key: "vcs.modified", Value: "true"}},
	}
	working := &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}
	const told = "2222222222222222222222222222222222222222"
	for _, test := range []struct {
		name, version, commit string
		info                  *debug.BuildInfo
		want                  build
	}{
		{"recorded by Go", "", "", recorded, build{Version: "v1.2.3", Commit: recorded.Settings[0].Value, Modified: true}},
		{"told by the linker", "v2.0.0", told, recorded, build{Version: "v2.0.0", Commit: told}},
		{"told by the linker, with changes", "", told + "-dirty", working, build{Version: "devel", Commit: told, Modified: true}},
		{"nothing known", "", "", nil, build{Version: "devel"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			oldVersion, oldCommit := version, commit
			t.Cleanup(func() { version, commit = oldVersion, oldCommit })
			version, commit = test.version, test.commit
			got := buildOf(test.info)
			test.want.Go, test.want.Platform = got.Go, got.Platform
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if got.Go == "" || got.Platform == "" {
				t.Errorf("%+v does not say what it was built with, and for what", got)
			}
		})
	}
}
