#!/bin/sh
# Build Gitea with all that it needs at run time in one file; it wants no other
# program than git.
#
#   build.sh FOLDER FILE
#
# FOLDER gets the source as it is built: it may not be built where the modules
# are, for one file is left out of it, and the templates and locales that go
# into the program are packed there first. The folder is always the same, so
# that Go's build cache knows it again. FILE is replaced atomically.
#
# It does without cgo: its SQLite is written in Go, and no C compiler is asked
# for. What it could share with the product in the build cache takes less time
# than what cgo would add.
set -eu
export CGO_ENABLED=0

if [ $# -ne 2 ] || [ -z "$1" ] || [ -z "$2" ]; then
	echo "usage: build.sh FOLDER FILE" >&2
	exit 2
fi
absolute() {
	case $1 in
	/*) printf '%s\n' "$1" ;;
	*) printf '%s\n' "$PWD/$1" ;;
	esac
}
folder=$(absolute "$1")
file=$(absolute "$2")
cd "$(dirname "$0")"

go mod download gitea.dev
origin=$(go list -m -f '{{.Dir}}' gitea.dev)
version=$(go list -m -f '{{.Version}}' gitea.dev)
source=$folder/source
rm -rf "$folder"
mkdir -p "$source"
for part in build cmd models modules options public routers services templates go.mod main.go main_timezones.go; do
	cp -R "$origin/$part" "$source"
done
chmod -R u+w "$source"
rm "$source/services/migrations/gitea_downloader.go"

cp go.mod go.sum "$folder"
go mod edit -replace "gitea.dev=$source" "$folder/go.mod"
for of in options public templates modules/migration/schemas; do
	into=${of%/schemas}
	go run -modfile="$folder/go.mod" "$source/build/generate-bindata.go" "$source/$of" "$source/modules/${into#modules/}/bindata.dat" >/dev/null
done

mkdir -p "$(dirname "$file")"
temp=$(mktemp "$file.XXXXXX")
trap 'rm -f "$temp"' EXIT
go build -modfile="$folder/go.mod" -tags bindata -ldflags "-s -w -X main.Version=${version#v}" -o "$temp" gitea.dev
chmod 755 "$temp"
mv -f "$temp" "$file"
