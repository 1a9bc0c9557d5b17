# The commands of a clone. Each is a script in dev/ that can be run by itself; this file only names them.
.DEFAULT_GOAL := help
.PHONY: help build demo up down test lint deny sbom bench bench-scaling bench-flat bench-operations bench-queries bench-security bench-instructions chaos
KEEP ?=
export KEEP MINUTES SEED ROUND ROUND_SECONDS RATE EVENTS PAIRS EVENT_IDS

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Install what is missing, run Runlog on simulated events, check the result, stop (KEEP=1 leaves it up)
	@dev/demo

up: ## Start Kafka, PostgreSQL, ingest and projectors in the background; settings go to .runlog/env
	@dev/up

down: ## Stop what `make up` started and remove its data (KEEP=1 keeps the data)
	@dev/down $(if $(KEEP),--keep)

test: ## Install what is missing, run the whole test suite
	@dev/test

lint: ## Run only the checks: format, clippy, scripts, compose file, documents, crates, bills of materials
	@dev/test format clippy scripts compose docs supply sbom

deny: ## Ask for advisories and yanked versions of the crates, too (needs a network)
	@dev/deny

sbom: ## Write a bill of materials of each program (CycloneDX) into target/sbom
	@dev/sbom

bench: ## Measure everything beside what the database could do at most (EVENTS=500000 PAIRS=5 EVENT_IDS=v7|v4)
	@dev/bench

bench-scaling: ## Measure drains of 1 to 8 partitions by 1 to 4 processes (EVENTS=500000 PAIRS=3)
	@dev/bench scaling

bench-flat: ## Measure drains into a log of LARGE=50000000 events beside one of a million (EVENTS=200000 PAIRS=5)
	@dev/bench flat $(LARGE)

bench-operations: ## Time verification, rebuilds, and the state of a run of 100,000 events
	@dev/bench operations

bench-queries: ## Time the queries of docs/analysts.md at 1.4 million runs (KEEP=1 keeps the data for the next time)
	@dev/bench queries

bench-security: ## Measure what row-level security and the chain of digests cost, in pairs
	@dev/bench security

bench-instructions: ## Count what the hot functions take per event, beside the kept figures (UPDATE=1 keeps the new ones)
	@dev/bench-instructions $(if $(UPDATE),--update)

chaos: ## Break everything for MINUTES (2) and check that nothing is lost (SEED=N repeats a run, ROUND=N one round)
	@dev/chaos

build: ## Build the release programs into target/release
	@dev/install
	cargo build --release --locked --bins -p runlog -p runlog-ingest -p runlog-projectors
