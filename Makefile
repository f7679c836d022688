# make demo [CLIP=my.mp4]   upscales a clip with the released BasicVSR weights, into demo/
# make test                 formatting, lint, types and tests
# make sanitize             the tests that go through the plugin, on a build of it that AddressSanitizer
#                           and UndefinedBehaviorSanitizer watch (Linux, gcc)
#
# Each makes its environment in .venv first: about 5 GB, most of it torch.

VENV := .venv
BIN := $(abspath $(VENV))/bin
SANITIZED := .venv-sanitized
CLIP ?=

.PHONY: demo test sanitize env bench clean

demo: env
	PATH="$(BIN):$$PATH" $(BIN)/python examples/demo.py $(if $(CLIP),"$(CLIP)")

test: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest

# Python and torch are not built for it: their leaks are theirs, and the runtime must come first.
sanitize: $(SANITIZED)/ready
	PATH="$(abspath $(SANITIZED))/bin:$$PATH" \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(SANITIZED)/bin/python -m pytest tests/bridge tests/filters

# An environment of its own with VapourSynth and the plugin; all else is read from the first one.
$(SANITIZED)/ready: $(VENV)/ready
	rm -rf $(SANITIZED)
	$(BIN)/python -m venv $(SANITIZED)
	$(SANITIZED)/bin/python -m pip install --quiet --no-deps vapoursynth vapoursynth-bestsource
	CC=gcc $(SANITIZED)/bin/python -m pip install --quiet --no-deps --editable . \
	    --config-settings=cmake.define.VSR_SANITIZE=ON
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
	    "$$($(SANITIZED)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/first.pth"
	touch $@

bench: env
	PATH="$(BIN):$$PATH" $(BIN)/python -m vs_vsr.bench

env: $(VENV)/ready

# A new plugin needs a new install; edits of Python do not.
$(VENV)/ready: pyproject.toml CMakeLists.txt $(wildcard native/*)
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || \
	    { echo "make: no C compiler was found to build the plugin. Install one (on Debian: apt install gcc)." >&2; exit 1; }
	python=$$(PYTHON="$(PYTHON)" sh .ci/find-python) && "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(SANITIZED) build demo
