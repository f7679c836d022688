# make demo [CLIP=my.mp4]   upscales a clip with the released BasicVSR weights, into demo/
# make test                 formatting, lint, types and tests
#
# Each makes its environment in .venv first: about 5 GB, most of it torch.

VENV := .venv
BIN := $(abspath $(VENV))/bin
CLIP ?=

.PHONY: demo test env bench clean

demo: env
	PATH="$(BIN):$$PATH" $(BIN)/python examples/demo.py $(if $(CLIP),"$(CLIP)")

test: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest

bench: env
	PATH="$(BIN):$$PATH" $(BIN)/python -m vs_vsr.bench

env: $(VENV)/ready

# A new plugin needs a new install; edits of Python do not.
$(VENV)/ready: pyproject.toml CMakeLists.txt $(wildcard native/*)
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || \
	    { echo "make: a C compiler must be there to build the plugin (on Debian: apt install gcc)." >&2; exit 1; }
	python=$$(PYTHON="$(PYTHON)" sh .ci/find-python) && "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build demo
