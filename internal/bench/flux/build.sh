#!/bin/sh
# Build Flux's source-controller and kustomize-controller, and lay the
# definitions of their kinds beside them.
#
#   build.sh FOLDER
set -eu

case ${1-} in
/*) folder=$1 ;;
?*) folder=$PWD/$1 ;;
*)
	echo "usage: build.sh FOLDER" >&2
	exit 2
	;;
esac
cd "$(dirname "$0")"

rm -rf "$folder"
mkdir -p "$folder/crds"
for controller in source-controller kustomize-controller; do
	module=github.com/fluxcd/$controller
	go build -ldflags '-s -w' -o "$folder/$controller" "$module"
	cp "$(go list -m -f '{{.Dir}}' "$module")"/config/crd/bases/*.yaml "$folder/crds"
done
chmod -R u+w "$folder"
# What make looks at: all is there.
go list -m -f '{{.Path}} {{.Version}}' github.com/fluxcd/source-controller github.com/fluxcd/kustomize-controller >"$folder/versions"
