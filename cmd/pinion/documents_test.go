package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// README.md lists the commands that there are, with the arguments that they take.
func TestReadmeListsTheCommands(t *testing.T) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `pinion ([^`]+)` \\|").FindAllStringSubmatch(string(data), -1) {
		listed = append(listed, strings.ReplaceAll(m[1], `\|`, "|"))
	}
	var there []string
	for _, c := range newRootCommand(&globals{}).Commands() {
		if slices.Contains([]string{"version", "help", "completion"}, c.Name()) {
			continue
		}
		if c.Runnable() && !(c.HasSubCommands() && c.Use == c.Name()) {
			there = append(there, c.Use)
		}
		for _, sub := range c.Commands() {
			there = append(there, c.Name()+" "+sub.Use)
		}
	}
	slices.Sort(listed)
	slices.Sort(there)
	if !slices.Equal(listed, there) {
		t.Errorf("README.md lists\n  %s\nthere are\n  %s", strings.Join(listed, "\n  "), strings.Join(there, "\n  "))
	}
}

// The command lines in the documents have flags that the commands know.
func TestDocumentsUseFlagsThatThereAre(t *testing.T) {
	root := newRootCommand(&globals{})
	line := regexp.MustCompile("(?m)(?:^|`|-- )pinion ([a-z]+)((?: [^`#&\n]*)?)")
	n := 0
	for _, name := range []string{"README.md", "docs/configuration.md", "docs/formats.md", "docs/troubleshooting.md", "examples/install/README.md", "examples/shop/README.md", "cmd/pinion/scaffold/README.md"} {
		data, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(data), -1) {
			cmd, _, err := root.Find([]string{m[1]})
			if err != nil || cmd == root {
				t.Errorf("%s: there is no command in %q", name, m[0])
				continue
			}
			n++
			for _, f := range regexp.MustCompile(` --([a-z-]+)`).FindAllStringSubmatch(m[2], -1) {
				if !hasFlag(cmd, f[1]) {
					t.Errorf("%s: pinion %s has no flag --%s", name, cmd.Name(), f[1])
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("found only %d command lines", n)
	}
}

func hasFlag(cmd *cobra.Command, name string) bool {
	return cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil
}

func TestInstalledConfigurationIsRead(t *testing.T) {
	g := &globals{config: "../../examples/install/config.yaml"}
	c, err := g.readConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.Repository.URL == "" || c.Listen != "0.0.0.0:8080" || c.DataDir != "/var/lib/pinion" {
		t.Errorf("got %+v", c)
	}
}
