# Test and demo share one virtual environment, .venv, made once. Its stamp says what it was made from; the stamp reads
# `unfinished` while pip works, so that an install which was killed is redone from nothing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help env demo test clean

PYTHON ?=
# While pip installs PyTorch with CUDA: 3.2 GB of wheels, once more in pip's cache, and 6.5 GB in .venv, which stay.
DISK_GB ?= 13
PY := .venv/bin/python

help:  ## show this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 13

env:  ## make .venv and install SAADi into it, once (PYTHON=... chooses an interpreter, 3.11 or newer)
	@die() { echo "make env: $$1; $$2" >&2; exit 1; }
	trap 'exit 130' INT
	stamp=.venv/.stamp
	now=$$({ pwd; cat pyproject.toml constraints.txt; } | sha256sum | cut -d' ' -f1)
	was=$$(cat $$stamp 2>/dev/null || true)
	if ! $(PY) -c '' 2>/dev/null; then was=unfinished; fi
	if [ "$$was" = "$$now" ]; then exit 0; fi
	if [ "$$was" = unfinished ]; then
	  rm -rf .venv
	  for python in $(or $(PYTHON),python3.11 python3 python3.12 python3.13 python3.14); do
	    if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
	    python=
	  done
	  if [ -z "$$python" ]; then
	    die '$(or $(PYTHON),python3) is not Python 3.11 or newer with venv' 'install one or say PYTHON=/path/to/python3.11'
	  fi
	  free=$$(df -Pk . | awk 'NR == 2 {print int($$4 * 1.024e-6)}')
	  if [ "$$free" -lt $(DISK_GB) ]; then
	    die "$$free GB free in $(CURDIR), $(DISK_GB) wanted while installing" \
	      "free some, or say DISK_GB=7 if pip's cache and TMPDIR are on another disk"
	  fi
	  echo "Making .venv with $$($$python --version): 3.2 GB to download, 6.5 GB on disk; 3 to 15 minutes ..."
	  mkdir .venv
	  echo unfinished > $$stamp
	  $$python -m venv .venv
	else
	  echo "Bringing .venv up to date with pyproject.toml and constraints.txt: seconds, or minutes if PyTorch changes ..."
	  echo unfinished > $$stamp
	fi
	# Pip undoes what fails, but not what is killed: only then is the environment torn.
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' ||
	  { echo "$$was" > $$stamp; exit 1; }
	echo "$$now" > $$stamp
	echo "Installed into .venv."

demo: env  ## run the whole method on the phantom into runs/demo-classification (about 15 minutes on two cores)
	@.venv/bin/saadi demo

test: env  ## ruff, mypy and pytest
	@$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	# A test keeps one core busy. A file's tests stay in one of the processes, so that what they share is made once.
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

clean:  ## remove caches and build output; runs/ and .venv stay
	@rm -rf build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
