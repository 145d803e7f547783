# Every target is one script below ci/; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## set up .venv and show the whole story on this machine
	@ci/setup
	@.venv/bin/lockgate demo $(or $(ARGS),--keep)

test: ## everything CI runs, set-up included
	@ci/test

check: ## linters, types, layers, generated schemas and docs
	@ci/setup
	@ci/check

bench: ## the performance table
	@ci/setup
	@ci/bench $(ARGS)
