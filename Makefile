# make run    the server on loopback ports, nothing to edit      make test   every test
# make bench  figures beside the peers                           make lint   ruff and mypy
# make soak   an hour of everything at once
# With another Python than the system's: PYTHON=/where/it/is (later on: make -B install PYTHON=/where/it/is)
.POSIX:
VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/installed
DEV_STAMP = $(VENV)/installed-dev
PACKAGE = pyproject.toml requirements/build.txt packaging/compile_steps.py \
    mailserver/store/commit.h mailserver/store/steps.c mailserver/store/parcel.c mailserver/store/commit.c \
    mailserver/store/belt.c mailserver/store/listing.c mailserver/store/workers.c mailserver/store/wire.c

.PHONY: run test bench soak lint install lock image-test clean

run: install
	$(BIN)/mailserver serve -c config.toml

install: $(STAMP)

$(STAMP): $(PACKAGE) requirements/run.txt
	packaging/make-venv "$(PYTHON)" $(VENV) requirements/run.txt
	touch $@

$(DEV_STAMP): $(PACKAGE) requirements/dev.txt
	packaging/make-venv "$(PYTHON)" $(VENV) requirements/dev.txt
	touch $(STAMP) $@

test: $(DEV_STAMP)
	packaging/install-peers
	$(BIN)/python -m pytest

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV_STAMP)
	packaging/install-peers
	$(BIN)/python -m bench.run $(ARGS)

soak: $(DEV_STAMP)
	$(BIN)/python -m bench.soak $(ARGS)

image-test: $(DEV_STAMP)
	packaging/docker/test-image

# Names, versions and hashes only: no index and no address gets into the lock files.
LOCK = $(BIN)/pip-compile --quiet --generate-hashes --no-header --no-annotate --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet pip-tools
	$(LOCK) --extra test --extra lint -o requirements/dev.txt pyproject.toml
	$(LOCK) -c requirements/dev.txt -o requirements/run.txt pyproject.toml
	$(LOCK) -c requirements/dev.txt -o requirements/build.txt requirements/build.in

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
