# Stillframe. `make` alone says what there is.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo dev)
SEEDS   ?= 200000
SEED    ?= 1
# Release builds also name a server of RFC 3161 timestamps.
SIGN_CERT ?=
SIGN_KEY  ?=
SIGN_TIMESTAMP ?=
export SIGN_TIMESTAMP

# Plain Go, no cgo, no paths of the building machine. The version is stamped by us, so git is not asked a second time.
GOBUILD  = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION) $${ldflags:-}"
# Go's preemption stops threads by SuspendThread on Windows, wherever they are; a process can stand still for good by it
# (golang/go#80665, #42528). One that holds a guest must not.
UNPREEMPTED = -X runtime.godebugDefault=asyncpreemptoff=1
PAYLOAD := pkg/guest/payload
TOOLS   := .tools/.stamp

.PHONY: help build agent agent-packages msi winelab demo test test-scaleout check sim sim-mutants crash-matrix bench tools clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile

build: agent ## stillframe, its agent and the lab, into build/
	$(GOBUILD) -o build/stillframe ./cmd/orchestrator
	$(GOBUILD) -o build/stillframe-agent ./cmd/agent
	$(GOBUILD) -o build/stillframe-lab ./cmd/lab
	$(GOBUILD) -tags lab -o build/lab/stillframe-agent ./cmd/agent

agent: ## the agents that stillframe carries inside itself; SIGN_CERT= and SIGN_KEY= (PEM files) sign the one for Windows
	@mkdir -p build $(PAYLOAD)
	for platform in linux/amd64 linux/arm64 windows/amd64; do \
	  os=$${platform%/*}; arch=$${platform#*/}; name=stillframe-agent-$$os-$$arch; \
	  ldflags=; if [ $$os = windows ]; then name=$$name.exe; ldflags='$(UNPREEMPTED)'; fi; \
	  GOOS=$$os GOARCH=$$arch $(GOBUILD) -o build/$$name ./cmd/agent; \
	  if [ $$os = windows ] && [ -n "$(SIGN_CERT)" ]; then scripts/sign "$(SIGN_CERT)" "$(SIGN_KEY)" build/$$name; fi; \
	  gzip -n -9 -c build/$$name > build/$$name.gz; \
	  mv build/$$name.gz $(PAYLOAD)/$$name.gz; \
	done

winelab: ## the fake VSS of the Wine lab, into build/wine/
	@$(MAKE) --no-print-directory -s -C testing/cpp OUT=$(CURDIR)/build/wine

demo: ## true freeze windows in the lab, of a Linux and (as root) of a Windows guest, and the daemon with three jobs; leaves build/demo/*.json
	scripts/deps demo
	@$(MAKE) --no-print-directory build
	@if [ $$(id -u) = 0 ]; then $(MAKE) --no-print-directory winelab build/lab/stillframe-agent.exe; fi
	build/stillframe-lab demo --stillframe build/stillframe --agent build/lab/stillframe-agent --out build/demo \
	  $$(if [ $$(id -u) = 0 ]; then echo --windows-agent build/lab/stillframe-agent.exe --wine-programs build/wine; fi)

msi: agent ## the Windows Installer package of the persistent agent, build/stillframe-agent.msi; SIGN_CERT= and SIGN_KEY= sign it too
	@command -v wixl >/dev/null || { echo "make msi: wixl is missing; on Debian as root: apt install msitools wixl" >&2; exit 1; }
	scripts/msi build/stillframe-agent-windows-amd64.exe "$(VERSION)" build/stillframe-agent.msi
	if [ -n "$(SIGN_CERT)" ]; then scripts/sign "$(SIGN_CERT)" "$(SIGN_KEY)" build/stillframe-agent.msi; fi

agent-packages: agent .tools/nfpm ## the deb and the rpm of the persistent agent for amd64 and arm64, into build/
	for arch in amd64 arm64; do scripts/packages build/stillframe-agent-linux-$$arch $$arch "$(VERSION)" build; done

# Alone, because its modules do not go together with those of the linters.
.tools/nfpm:
	@mkdir -p .tools
	GOBIN=$(CURDIR)/.tools go install github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0

.PHONY: build/lab/stillframe-agent.exe
build/lab/stillframe-agent.exe:
	ldflags='$(UNPREEMPTED)'; GOOS=windows GOARCH=amd64 $(GOBUILD) -tags lab -o $@ ./cmd/agent

test: .tools/nfpm ## 200,000 windows, then every test with the race detector; as root on Debian nothing is skipped
	scripts/deps test
	@$(MAKE) --no-print-directory -j3 build winelab sim
	scripts/test

test-scaleout: ## two daemons on one PostgreSQL: one is killed, stopped, ended; leaves build/scaleout.json
	scripts/deps test
	@$(MAKE) --no-print-directory agent
	@mkdir -p build && rm -f build/scaleout.json
	go test ./cmd/orchestrator -run '^TestScaleout' -v -count=1 -timeout 20m \
	  -args -scaleout.out=$(CURDIR)/build/scaleout.json | tee build/scaleout.log | grep -E '^( *--- |ok|FAIL|PASS)|(taken|handed) over after'
	@cat build/scaleout.json

check: agent $(TOOLS) ## format, vet, linters, dead code, the import table
	scripts/check

sim: ## SEEDS windows (200000) from SEED (1) against every invariant; leaves build/sim.json
	@mkdir -p build
	go test ./pkg/freezewindow -run '^TestSim$$' -count=1 -timeout 30m \
	  -args -sim.n=$(SEEDS) -sim.seed=$(SEED) -sim.out=$(CURDIR)/build/sim.json

crash-matrix: ## kill -9 the daemon at every failpoint, twice in a row, on SQLite and PostgreSQL; leaves build/crash.json and build/crash-points.txt
	scripts/deps test
	@$(MAKE) --no-print-directory agent
	go test ./cmd/orchestrator -run '^TestCrashMatrix$$' -count=1 -timeout 45m \
	  -args -crash.full -crash.out=$(CURDIR)/build/crash.json -crash.points=$(CURDIR)/build/crash-points.txt

bench: .tools/govc ## the window's overhead beside a script of govc, the agent's size and memory, the roads into Windows, the daemon's speed; leaves build/bench/*.json
	scripts/deps demo
	@$(MAKE) --no-print-directory build winelab build/lab/stillframe-agent.exe
	@mkdir -p build/bench
	$(GOBUILD) -o build/bench/bench ./testing/bench
	build/bench/bench --out build/bench build/stillframe-agent-linux-amd64 build/stillframe-agent-linux-arm64 \
	  build/stillframe-agent-windows-amd64.exe
	go test ./cmd/orchestrator -run '^$$' -bench '^BenchmarkScrape$$' -benchtime 20x | tee build/bench/scrape.txt

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
