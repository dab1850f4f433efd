# `make demo` and `make test` set up what they need in .venv first; from the second time on that takes no time.
.DEFAULT_GOAL := help
.PHONY: help demo test docs pictures test-cluster cluster-programs cluster-up cluster-down check bench study-find-max study-find-max-steps study-load-repeats study-fleet-kill study-fleet-outliers study-burnin study-compare study-load study-load-queue study-gameday study-gameday-days study-coverage format

help:
	@echo "make demo    burn-in, load test and game day of this machine, in about 3 minutes"
	@echo "make test    every test that can run here; says what was left out and why"
	@echo "make test-cluster  the tests that need a real Kubernetes: starts three on this machine and removes them (root)"
	@echo "make cluster-programs  builds what that cluster needs, once: many minutes, apart from the tests"
	@echo "make cluster-up    the same cluster, left running; make cluster-down removes it whole"
	@echo "make check   format, lint, types, import directions"
	@echo "make docs    the documents as a site, in build/site"
	@echo "make pictures  those in docs/pictures, from real short runs; six minutes"
	@echo "make bench   measured figures, beside what a user would use instead"
	@echo "make study-burnin  seeded faults, healthy nodes: through the burn-in's rules, and in whole runs; 20 minutes"
	@echo "make study-fleet-kill  kill the controller of a fleet 20 times; cut wires, sleeping shells (root)"
	@echo "make study-fleet-outliers  false alarms and misses of the rule on slow GPUs, over made-up fleets; 15 minutes"
	@echo "make study-attribution  simulated sick fleets through the isolation and those of other tools, in minutes"
	@echo "make study-compare  like and changed load runs, simulated, through overproof compare: how often it is wrong; 5 minutes"
	@echo "make study-find-max  load find-max against endpoints whose capacity is known; at most 20 minutes, alone on a machine"
	@echo "make study-find-max-steps  single steps of a search, simulated: how often they are decided wrongly; 20 minutes"
	@echo "make study-load-repeats  one workload 30 times around its true limit; goes on where it stopped; 45 minutes"
	@echo "make study-gameday  signals to every process of a game day at every step; goes on where it stopped; twenty minutes"
	@echo "make study-gameday-days  50 game days on a lab that heals, 50 on one that does not; goes on where it stopped; 80 minutes"
	@echo "make study-load  simulated load runs, independent and correlated, through the rules on SLOs: how often wrong; 40 minutes"
	@echo "make study-load-queue  verdicts on simulated endpoints near their limit, where it is the load that makes them slow; 15 minutes"
	@echo "make study-coverage  what the test suite's own runs have shown of what really breaks; goes on where it stopped; 15 minutes (root)"
	@echo "make format  let ruff rewrite the files"

demo:
	@.ci/setup demo
	@.venv/bin/overproof demo

# What shows and documents runs has no clock of its own, so two files of it run at a time, after what measures; game days
# mostly wait, so three of theirs do, last. ARGS runs what it names, alone.
GAMEDAYS := tests/experiments/test_*.py
PAGES := tests/reports tests/test_howto.py tests/test_docs_site.py tests/test_package.py
test:
	@.ci/setup dev
ifeq ($(strip $(ARGS)),)
	@status=0; \
	.venv/bin/python -m pytest --ignore-glob='$(GAMEDAYS)' $(PAGES:%=--ignore=%) || status=$$?; \
	[ $$status -ne 2 ] || exit 2; \
	.venv/bin/python -m pytest -n 2 --dist loadfile $(PAGES) || status=$$?; \
	[ $$status -ne 2 ] || exit 2; \
	.venv/bin/python -m pytest -n 3 --dist loadfile $(GAMEDAYS) || status=$$?; \
	exit $$status
else
	@.venv/bin/python -m pytest $(ARGS)
endif

# These mostly wait: three clusters share the files. ARGS runs what it names, on one.
test-cluster:
	@.ci/setup dev
ifeq ($(strip $(ARGS)),)
	@.venv/bin/python -m tests.cluster --clusters 3 run .venv/bin/python -m pytest -m cluster \
	  -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 tests/cluster
else
	@.venv/bin/python -m tests.cluster run .venv/bin/python -m pytest -m cluster $(ARGS)
endif

cluster-programs:
	@.ci/setup dev
	@.venv/bin/python -m tests.cluster programs

cluster-up:
	@.ci/setup dev
	@.venv/bin/python -m tests.cluster up

cluster-down:
	@.ci/setup dev
	@.venv/bin/python -m tests.cluster down

check:
	@.ci/setup dev
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

docs:
	@.ci/setup dev
	@.venv/bin/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/site

pictures:
	@.ci/setup dev
	@.venv/bin/python docs/make_pictures.py

bench:
	@.ci/setup dev
	@.venv/bin/python -m tests.benchmarks

study-burnin:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.burnin
	@nice .venv/bin/python -m tests.studies.burnin_runs

study-fleet-kill:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.fleet_kill

study-fleet-outliers:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.fleet_outliers

study-attribution:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.attribution

study-compare:
	@.ci/setup dev
	@nice .venv/bin/python -m tests.studies.compare

study-gameday:
	@.ci/setup dev
	@nice .venv/bin/python -m tests.studies.gameday_crashes

study-gameday-days:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.gameday_days

study-load:
	@.ci/setup dev
	@nice .venv/bin/python -m tests.studies.load_verdicts

study-load-queue:
	@.ci/setup dev
	@nice .venv/bin/python -m tests.studies.load_queue

study-find-max:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.find_max

study-find-max-steps:
	@.ci/setup dev
	@nice .venv/bin/python -m tests.studies.find_max_steps

study-load-repeats:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.load_repeats

study-coverage:
	@.ci/setup dev
	@.venv/bin/python -m tests.studies.coverage

format:
	@.ci/setup dev
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .
