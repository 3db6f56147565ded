// Package render turns one service in one environment into exact Kubernetes
// objects, and says what it read on the way.
//
// It decides three things. Which renderer a folder asks for: main.jsonnet,
// else a kustomization file, else plain YAML and JSON files. What the objects
// are: sorted, labelled, in one namespace, stripped of what only a cluster
// writes, as bytes that are the same on any machine. And whether a rendering
// still holds for another tree: each file that was read, each folder that was
// listed and each path that was looked for in vain is recorded with its git
// object id, so that two trees which agree on all of them render the same.
//
// It never reads anything but the tree it is given: no disk, no network, no
// clock, no environment, no other program. Jsonnet imports come from the tree;
// remote Kustomize bases, plugins and charts are refused before the build
// starts. A read that failed (as opposed to a file that is not there) fails
// the whole rendering, with an error that is not an *Error: nobody has to mend
// the manifests for it.
//
// Build is pure, but it is not harmless: Jsonnet is a programming language,
// so it can run for ever, and a deep enough file overflows the stack of the
// whole process. Package worker runs Build in processes that may die. A crash
// leaves nothing behind, for nothing is stored.
package render
