# The verbs of this repository. `make` alone lists them.

VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS    := -s -w -X github.com/berth-run/berth/cli.version=$(VERSION)
TESTFLAGS  ?=
ROUNDS     ?= 200
VIOLATIONS ?= 10000
MODELS     ?=

# nft and ip live where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export GOTOOLCHAIN := local

# The same flags everywhere, so that build, vet, test and demo compile each
# package once.
export CGO_ENABLED := 0
export GOFLAGS     := $(GOFLAGS) -trimpath

# Packages whose tests are real containers, kernel objects or megabytes of
# schemas. The race detector would slow them tenfold and see little: what is
# concurrent in them is other processes. All others are tested with it. Those
# of the whole come last, one after the other.
PLAIN := . ./agent/containerd/... ./aws/conformance/... ./aws/gen/... ./bench/... ./cli/... ./dataplane/... ./demo/... ./docs/... ./node/...
WHOLE := ./test/...

.DEFAULT_GOAL := help
.PHONY: help build demo test test-short check soak fuzz bench gen lint fmt vuln ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The shim is a program of its own inside of the binary: node/containerd/shim.gz
# is empty in the repository, and the compiler is given another file for it.
build: ## build bin/berth
	@mkdir -p .cache/shim
	@go build -tags grpcnotrace -ldflags '-s -w' -o .cache/shim/shim ./node/shim/slim
	@gzip -9nc .cache/shim/shim > .cache/shim/shim.gz
	@echo '{"Replace": {"node/containerd/shim.gz": ".cache/shim/shim.gz"}}' > .cache/shim/overlay.json
	@go build -overlay .cache/shim/overlay.json -ldflags '$(LDFLAGS)' -o bin/berth .

demo: ## install what is missing, build, start a region and run a service on it
	@scripts/install.sh
	@echo "Building bin/berth (the first time takes a few minutes) …"
	@$(MAKE) --no-print-directory build
	@go run ./demo -berth bin/berth

test: ## run every test; needs root, installs what is missing
	@scripts/install.sh test
	@$(MAKE) --no-print-directory check
	go test -p 2 -timeout 10m $(TESTFLAGS) $(PLAIN)
	CGO_ENABLED=1 go test -p 2 -timeout 10m $(TESTFLAGS) -race $$(go list ./... | grep -vxF "$$(go list $(PLAIN) $(WHOLE))")
	go test -p 1 -timeout 10m $(TESTFLAGS) $(WHOLE)

test-short: check ## run the tests that need neither root nor a minute
	go test -short -timeout 5m $(TESTFLAGS) ./auth/... ./aws/wire/... ./control/... ./service/... ./registry/... ./dispatch/... ./cli/... ./test/arch/...

check: ## check the formatting and go vet
	@bad=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
		if [ -n "$$bad" ]; then echo "not formatted (make fmt):"; echo "$$bad"; exit 1; fi
	go vet ./...

soak: build ## kill the processes ROUNDS times and look for what is lost; VIOLATIONS bad requests per operation
	BERTH_VIOLATIONS=$(VIOLATIONS) go test -count=1 -timeout 25m -v -run TestOneViolationIsRefused ./service
	BERTH_SOAK_ROUNDS=$(ROUNDS) go test -count=1 -timeout 25m -v ./test/soak/...

fuzz: ## fuzz every decoder for ten seconds each
	@scripts/fuzz.sh 10s

bench: build ## compare with the peers, side by side
	@for d in bench/*/; do echo "== $$d"; go run "./$$d" || exit 1; done

gen: ## write the generated files; MODELS=<botocore>/botocore/data for aws/
	@if [ -n "$(MODELS)" ]; then go run ./aws/gen -models '$(MODELS)'; \
		else echo "without MODELS=<botocore>/botocore/data only docs/ is generated (see CONTRIBUTING.md)"; fi
	go run ./docs/gen

lint: check ## check, staticcheck, and golangci-lint where it is installed
	go tool -modfile=tools/go.mod staticcheck ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run; fi

fmt: ## format the code
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')

vuln: ## look for known vulnerabilities in what is used
	go tool -modfile=tools/go.mod govulncheck ./...

ci: ## what CI runs
	.ci/run

clean: ## remove what was built
	rm -rf bin .cache
