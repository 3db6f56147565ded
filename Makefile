# Pinion's build. `make` lists the targets.
#
# All that is made goes to bin/ and .cache/. Go keeps its own build cache, and
# with it a second build takes seconds.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

alive := .ci/alive
# Folders that are Go modules. tools/ holds no code of its own.
modules := . cmd/devcluster
# One package's tests may take this long, building not counted.
test_timeout := 30m

version := $(shell git describe --tags --dirty 2>/dev/null)
commit := $(shell git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null)
ldflags := -X main.version=$(version) -X main.commit=$(commit)

# The demo takes a cluster of one's own only from make's command line: an
# exported KUBECONFIG may be of a cluster that is none of the demo's business.
given = $(if $(filter command line,$(origin $(1))),$($(1)))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '%s\n' '' \
	  'The first build of devcluster compiles Kubernetes: 10-15 minutes on 2 cores, 4 GB of disk.' '' \
	  'make demo KEEP=1                  leave the demo running until Ctrl-C' \
	  'make demo KUBECONFIG=FILE         play it on a cluster of your own (CONTEXT=, NAMESPACE=)' \
	  'make test ARGS="-run Plan -v"     more arguments for go test' \
	  'make bench ARGS="-rounds 1"       more arguments for the benchmark' \
	  'make chaos DURATION=5m            for another time than half an hour; so for neighbours'

.PHONY: build
build: pinion bin/devcluster ## build bin/pinion and bin/devcluster

.PHONY: pinion
pinion: | tools
	go build -ldflags '$(ldflags)' -o bin/pinion ./cmd/pinion

devcluster_sources := $(filter-out %_test.go,$(wildcard cmd/devcluster/*.go)) $(addprefix cmd/devcluster/,go.mod go.sum build.sh)

bin/devcluster: $(devcluster_sources) | tools
	@echo 'building bin/devcluster; the first time it compiles Kubernetes, 10-15 minutes on 2 cores' >&2
	@$(alive) 'building bin/devcluster' cmd/devcluster/build.sh devcluster $@

.PHONY: kubectl
kubectl: bin/kubectl ## build bin/kubectl, of devcluster's version of Kubernetes

bin/kubectl: $(addprefix cmd/devcluster/,go.mod go.sum build.sh) | tools
	@echo 'building bin/kubectl; 2-4 minutes the first time' >&2
	@$(alive) 'building bin/kubectl' cmd/devcluster/build.sh kubectl $@

.PHONY: demo
demo: pinion $(if $(call given,KUBECONFIG),,bin/devcluster) ## watch versions go from dev to production, and broken ones not, on a throw-away control plane
	@go build -o bin/demo ./examples/demo
ifeq ($(origin KUBECONFIG),environment)
	@echo 'The KUBECONFIG of the environment is not used. For that cluster: make demo KUBECONFIG="$$KUBECONFIG"' >&2
endif
	@exec bin/demo $(strip $(if $(call given,KUBECONFIG),-kubeconfig '$(KUBECONFIG)') \
	  $(if $(call given,CONTEXT),-context '$(CONTEXT)') $(if $(call given,NAMESPACE),-namespace '$(NAMESPACE)') \
	  $(if $(filter-out 0,$(KEEP)),-keep))

.PHONY: test
test: starting bin/devcluster gitea prometheus registry renovate ## run all tests
	@$(alive) 'go test of the product' .ci/failures go test -timeout $(test_timeout) $(ARGS) ./...
	@cd cmd/devcluster && ../../$(alive) 'go test of devcluster' ../../.ci/failures go test -timeout $(test_timeout) $(ARGS) ./...

gitea_module := internal/devtest/gitea
bin/gitea: $(addprefix $(gitea_module)/,go.mod go.sum build.sh) | tools
	@echo 'building bin/gitea; the first time some 4 minutes on 2 cores' >&2
	@$(alive) 'building bin/gitea' $(gitea_module)/build.sh .cache/gitea $@

.PHONY: gitea
gitea: $(if $(PINION_GITEA)$(shell command -v gitea),,bin/gitea) ## build bin/gitea, the forge of the tests, unless there is one

.PHONY: prometheus
prometheus: ## fetch the Prometheus of the tests, unless there is one
	@[ -n "$${PINION_PROMETHEUS-}" ] || command -v promtool >/dev/null || [ -x .cache/prometheus/usr/bin/promtool ] || \
	  $(alive) 'fetching Prometheus' .ci/debian .cache/prometheus prometheus \
	    'Install it (Debian: sudo apt-get install prometheus; macOS: brew install prometheus) so that it is on the PATH with promtool, or name the binary in PINION_PROMETHEUS, version 2.33 or later, with promtool beside it.' \
	    prometheus promtool

.PHONY: registry
registry: ## fetch the container registry of the tests, unless there is one
	@[ -n "$${PINION_REGISTRY-}" ] || command -v docker-registry >/dev/null || [ -x .cache/registry/usr/bin/docker-registry ] || \
	  $(alive) 'fetching a registry' .ci/debian .cache/registry docker-registry \
	    'Install it (Debian: sudo apt-get install docker-registry) so that it is on the PATH, or name the binary of a CNCF Distribution registry in PINION_REGISTRY.' \
	    docker-registry

.PHONY: renovate
renovate: ## fetch the Renovate of the tests, unless there is one
	@[ -d .cache/renovate/node_modules/renovate ] || $(alive) 'fetching Renovate' .ci/renovate .cache/renovate

.PHONY: starting
starting: | tools
	@echo 'make test: a cold build takes some 15-20 minutes, a warm one seconds; the tests take a few minutes'

.PHONY: check
check: fmt vet lint tidy schema rules ## all that can be checked without running the tests

.PHONY: fmt
fmt: | tools
	@files=$$(git ls-files --cached --others --exclude-standard -- '*.go' | while read -r f; do [ ! -f "$$f" ] || echo "$$f"; done | xargs -r gofmt -l); \
	if [ -n "$$files" ]; then echo "not formatted; run gofmt -w on:" >&2; echo "$$files" >&2; exit 1; fi

.PHONY: vet
vet: | tools
	@for m in $(modules); do echo "go vet $$m"; (cd $$m && $(CURDIR)/$(alive) "go vet $$m" go vet ./...); done

staticcheck := $(CURDIR)/.cache/staticcheck
.cache/staticcheck: tools/go.mod tools/go.sum | tools
	@mkdir -p .cache
	cd tools && go build -o $(staticcheck) honnef.co/go/tools/cmd/staticcheck

.PHONY: lint
lint: .cache/staticcheck
	@for m in $(modules); do echo "staticcheck $$m"; \
	(cd $$m && STATICCHECK_CACHE=$(CURDIR)/.cache/staticcheck.d $(CURDIR)/$(alive) "staticcheck $$m" $(staticcheck) ./...); done

.PHONY: tidy
tidy: | tools
	@for m in $(modules) tools; do echo "go mod tidy $$m"; (cd $$m && go mod tidy -diff); done

.PHONY: schema
schema: pinion
	@for f in desired/schema/*.json; do k=$${f##*/}; k=$${k%.json}; \
	bin/pinion schema "$$k" | diff -u "$$f" - || { echo "$$f is not what the types say: bin/pinion schema $$k > $$f" >&2; exit 1; }; done

.PHONY: rules
rules: | tools
	@go test -count=1 .

.PHONY: bench
bench: build ## measure the daemon beside the floor of the same work; ARGS=-help lists the settings
	@go build -o bin/bench ./internal/bench
	@exec bin/bench $(ARGS)

flux := internal/bench/flux
bin/flux/versions: $(addprefix $(flux)/,go.mod go.sum build.sh) | tools
	@echo 'building Flux into bin/flux; the first time some 5 to 10 minutes on 2 cores' >&2
	@$(alive) 'building Flux' $(flux)/build.sh bin/flux

.PHONY: bench-flux
bench-flux: build bin/flux/versions registry ## measure the daemon beside Flux, with the work of Flux's own benchmark
	@go build -o bin/bench ./internal/bench
	@exec bin/bench -only flux -idle 1m $(ARGS)

DURATION ?= 30m
bin/cosign: $(addprefix internal/cosign/,go.mod go.sum) | tools
	@echo 'building cosign; the first time some 5 to 10 minutes on 2 cores' >&2
	@cd internal/cosign && $(CURDIR)/$(alive) 'building cosign' go build -ldflags '-s -w' -o $(CURDIR)/bin/cosign github.com/sigstore/cosign/v3/cmd/cosign

.PHONY: cosign
cosign: bin/cosign registry ## have the real cosign sign images, in all its forms, and verify them
	@PINION_COSIGN=$(CURDIR)/bin/cosign go test -count=1 -run '^TestCosign$$' -v $(ARGS) ./registry/watch

.PHONY: chaos
chaos: bin/devcluster ## run a daemon for half an hour while all around it fails
	@PINION_LONG=$(DURATION) $(alive) 'chaos' go test -timeout 0 -count=1 -run '^TestChaos$$' -v $(ARGS) ./cmd/pinion

.PHONY: neighbours
neighbours: bin/devcluster registry ## run a daemon for half an hour while a forge, a registry, receivers and git fail
	@PINION_LONG=$(DURATION) $(alive) 'neighbours' go test -timeout 0 -count=1 -run '^TestNeighboursChaos$$' -v $(ARGS) ./cmd/pinion

.PHONY: public
public: bin/devcluster ## install, change and remove what other projects publish: hundreds of objects
	@PINION_PUBLIC=1 $(alive) 'public configurations' go test -timeout 20m -count=1 -run '^TestPublicConfigurations$$' -v $(ARGS) ./cmd/pinion

.PHONY: test-forge
test-forge: | tools ## test the client against a real forge: FORGE= URL= REPOSITORY= TOKEN=
	@[ -n '$(FORGE)' ] && [ -n '$(REPOSITORY)' ] && [ -n "$${TOKEN-}" ] || \
	  { echo 'say which: make test-forge FORGE=gitea URL=https://git.example REPOSITORY=shop/try TOKEN=…; the repository gets branches and pull requests' >&2; exit 1; }
	@FORGE_TOKEN="$$TOKEN" go test -count=1 -run '^TestRealForge$$' -v ./forge/rest -args -forge '$(FORGE)' -url '$(URL)' -repository '$(REPOSITORY)' $(ARGS)

.PHONY: clean
clean: ## remove bin/ and .cache/
	rm -rf bin .cache

go_needed := $(shell awk '$$1 == "go" {print $$2}' go.mod)

# tools says what is missing, before something less clear does.
.PHONY: tools
tools:
	@command -v go >/dev/null || { echo 'go is missing: install Go $(go_needed) or later, https://go.dev/dl' >&2; exit 1; }
	@command -v git >/dev/null || { echo 'git is missing: install it, https://git-scm.com/downloads' >&2; exit 1; }
	@have=$$(go env GOVERSION) && have=$${have#go} && have=$${have%% *} && \
	case $$have in devel*) exit;; esac && \
	{ printf '%s\n%s\n' '$(go_needed)' "$$have" | sort -V -C || \
	  { echo "Go $$have is too old: install Go $(go_needed) or later, https://go.dev/dl" >&2; exit 1; }; }
