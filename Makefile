# make demo [CLIP=my.mp4]   upscales a clip with the released BasicVSR weights, into demo/
# make check                formatting, lint, types, and the tests that are not slow: before each commit
# make test                 the same with all tests
# make sanitize             the tests that go through the plugin, on a build of it with AddressSanitizer
#                           and UndefinedBehaviorSanitizer (Linux, gcc)
# make bundle               dist/bundle: all that a machine with a GPU and without a network needs to
#                           measure (bundle/make.py)
# make docs                 the documentation as a site, in site/ (mkdocs.yml)
#
# Each makes its environment in .venv first: about 5 GB, most of it torch.

VENV := .venv
BIN := $(abspath $(VENV))/bin
SANITIZED := .venv-sanitized
CLIP ?=
# A process for each core, up to four, as each takes about 1 GB; so each has one thread. Bytecode is
# kept, wherever that is switched off: hundreds of processes read the same modules.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 PATH="$(BIN):$$PATH" $(BIN)/python -m pytest --numprocesses auto \
    --maxprocesses 4 --dist worksteal

.PHONY: demo check test lint sanitize env bench bundle docs clean

demo: env
	PATH="$(BIN):$$PATH" $(BIN)/python examples/demo.py $(if $(CLIP),"$(CLIP)")

check: lint
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST)

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Python and torch are not built with the sanitizers. So leaks are not looked for, and the runtimes
# must be loaded first.
sanitize: $(SANITIZED)/ready
	PATH="$(abspath $(SANITIZED))/bin:$$PATH" \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(SANITIZED)/bin/python -m pytest tests/bridge tests/filters tests/gpu

# A second environment with VapourSynth and the plugin; all else is read from the first one.
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

bundle: env
	$(BIN)/python bundle/make.py

docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

env: $(VENV)/ready

# A changed plugin needs a new install; changed Python files do not.
$(VENV)/ready: pyproject.toml CMakeLists.txt $(wildcard native/*)
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || \
	    { echo "make: no C compiler was found to build the plugin. Install one (on Debian: apt install gcc)." >&2; exit 1; }
	python=$$(PYTHON="$(PYTHON)" sh .ci/find-python) && "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(SANITIZED) build demo dist site
