# Stillframe. `make` alone says what there is.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo dev)
SEEDS   ?= 200000
SEED    ?= 1

# Plain Go, no cgo, no paths of the building machine. The version is stamped by us, so git is not asked a second time.
GOBUILD  = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
PAYLOAD := pkg/guest/payload
TOOLS   := .tools/.stamp

.PHONY: help build agent demo test check sim sim-mutants bench tools clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile

build: agent ## stillframe, its agent and the lab, into build/
	$(GOBUILD) -o build/stillframe ./cmd/orchestrator
	$(GOBUILD) -o build/stillframe-agent ./cmd/agent
	$(GOBUILD) -o build/stillframe-lab ./cmd/lab
	$(GOBUILD) -tags lab -o build/lab/stillframe-agent ./cmd/agent

agent: ## the agents that stillframe carries inside itself
	@mkdir -p build $(PAYLOAD)
	for arch in amd64 arm64; do \
	  name=stillframe-agent-linux-$$arch; \
	  GOOS=linux GOARCH=$$arch $(GOBUILD) -o build/$$name ./cmd/agent; \
	  gzip -n -9 -c build/$$name > build/$$name.gz; \
	  mv build/$$name.gz $(PAYLOAD)/$$name.gz; \
	done

demo: ## one true freeze window in the lab; leaves build/demo/report.json and proof.json
	scripts/deps demo
	@$(MAKE) --no-print-directory build
	build/stillframe-lab demo --stillframe build/stillframe --agent build/lab/stillframe-agent --out build/demo

test: ## every test, with the race detector; as root on Debian nothing is skipped
	scripts/deps test
	@$(MAKE) --no-print-directory build
	scripts/test

check: agent $(TOOLS) ## format, vet, linters, dead code, the import table
	scripts/check

sim: ## SEEDS windows (200000) from SEED (1) against every invariant; leaves build/sim.json
	@mkdir -p build
	go test ./pkg/freezewindow -run '^TestSim$$' -count=1 -timeout 30m \
	  -args -sim.n=$(SEEDS) -sim.seed=$(SEED) -sim.out=$(CURDIR)/build/sim.json

bench: .tools/govc ## the window's overhead beside a script of govc, the agent's size and memory; leaves build/bench/*.json
	scripts/deps demo
	@$(MAKE) --no-print-directory build
	@mkdir -p build/bench
	GOOS=windows GOARCH=amd64 $(GOBUILD) -o build/bench/stillframe-agent-windows-amd64.exe ./cmd/agent
	$(GOBUILD) -o build/bench/bench ./testing/bench
	build/bench/bench --out build/bench build/stillframe-agent-linux-amd64 build/stillframe-agent-linux-arm64 \
	  build/bench/stillframe-agent-windows-amd64.exe

.tools/govc: tools/govc/go.mod tools/govc/go.sum tools/govc/main.go
	@mkdir -p .tools
	cd tools/govc && CGO_ENABLED=0 go build -trimpath -o ../../.tools/govc .

sim-mutants: ## plant bugs in the reducers; each must break an invariant; leaves build/mutants.json
	@mkdir -p build
	go test ./pkg/freezewindow -run '^TestMutants$$' -count=1 -timeout 30m \
	  -args -sim.mutants-out=$(CURDIR)/build/mutants.json

tools: $(TOOLS) ## the pinned linters, into .tools/

$(TOOLS): tools/go.mod tools/go.sum
	@mkdir -p .tools
	cd tools && go build -o ../.tools/ tool
	@touch $@

clean: ## forget what was built; the tools stay
	rm -rf build $(PAYLOAD)/*.gz
