# Two commands on a fresh machine: `make demo` and `make test`. They need Python 3.11+, make and a
# package registry; everything else is set up in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
# one more than the cores of a small machine: workers wait for browsers, kernels and Ray
WORKERS := OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile
export INTERP_RUNS ?= $(CURDIR)/runs
# tests begin a hundred processes; without bytecode each would compile the package anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo app test test-all lint types docs together unit triton notebooks browser atlas clean

.venv/base: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/dev: .venv/base
	$(PIP) -e '.[dev]'
	touch $@

demo: .venv/base
	$(BIN)/interp neurons atlas --model smollm2-135m
	@for word in dog California Monday Python music doctor; do \
	    echo; echo "== $$word"; $(BIN)/interp neurons search $$word --limit 3 || exit $$?; done
	@echo; echo "Explore it in the browser:  make app    (or: $(BIN)/interp app)"

app: .venv/base
	$(BIN)/interp app

# two lanes beside each other; at the end come the seconds of each stage
test: .venv/dev
	sh tests/install_browser.sh
	$(BIN)/python tests/house/stages.py "lint types docs triton" "together"

test-all: test
	$(BIN)/pytest -m slow

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# import-linter and mypy walk folders, so they get the package laid out as it installs
types: .venv/dev
	rm -rf build/laid-out && mkdir -p build/laid-out
	cp -r interp build/laid-out/interp && cp -r apps data kernels probes build/laid-out/interp/
	cp pyproject.toml build/laid-out/
	$(BIN)/python tests/house/layers.py > build/laid-out/.importlinter
	cd build/laid-out && ../../$(BIN)/mypy && PYTHONPATH=. ../../$(BIN)/lint-imports

# the site, in build/site; nothing is fetched
docs: .venv/dev
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# one pytest for units, pages, notebooks and browser: nothing waits for the slowest of a stage
together: atlas
	$(WORKERS) -m 'not slow' --nbmake --nbmake-timeout=900 $(NOTEBOOKS) tests

unit: .venv/dev
	$(WORKERS) -m 'not slow and not browser'

triton: .venv/dev
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/kernels/test_triton.py

notebooks: atlas
	$(WORKERS) --nbmake --nbmake-timeout=900 $(NOTEBOOKS)

browser: .venv/dev
	sh tests/install_browser.sh
	$(WORKERS) -m browser

# several notebooks and tests ask for it, and only one process may write it
atlas: .venv/dev
	$(BIN)/interp neurons atlas --model smollm2-135m

clean:
	rm -rf .venv build *.egg-info runs
