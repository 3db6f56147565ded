#!/bin/sh
# Build devcluster, or the kubectl of the same Kubernetes version.
#
#   build.sh devcluster FILE
#   build.sh kubectl FILE
#
# FILE is replaced atomically. The version is that of k8s.io/kubernetes in
# go.mod: the modules themselves don't know it, so the linker has to tell them.
# Flags that change how packages compile (-trimpath, -race, CGO_ENABLED) are
# left alone: tests and both programs share one build cache.
set -eu

case "${1-} ${2-}" in
"devcluster "?*) package=. ;;
"kubectl "?*) package=k8s.io/kubernetes/cmd/kubectl ;;
*)
	echo "usage: build.sh devcluster|kubectl FILE" >&2
	exit 2
	;;
esac
case $2 in
/*) file=$2 ;;
*) file=$PWD/$2 ;;
esac
cd "$(dirname "$0")"

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v*.}
ldflags='-s -w'
for module in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	ldflags="$ldflags -X $module.gitVersion=$version -X $module.gitMajor=1 -X $module.gitMinor=${minor%%.*}"
	ldflags="$ldflags -X $module.gitTreeState=clean -X $module.gitCommit="
done

mkdir -p "$(dirname "$file")"
temp=$(mktemp "$file.XXXXXX")
trap 'rm -f "$temp"' EXIT
go build -ldflags "$ldflags" -o "$temp" "$package"
chmod 755 "$temp"
mv -f "$temp" "$file"
