# Everything here works from a bare clone with Python 3.11-3.13, make and git; the README says how to do without make.
PYTHON ?= python3
ENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(ENV)/Scripts
else
BIN := $(ENV)/bin
endif
RUN := $(BIN)/python
ONLY ?=
LAUNCHED := tests/test_processes.py
NOT ?=
# The unit tests that matter most: pure functions, the training loop and its checkpoints, readers, models, the command.
QUICK := $(addsuffix .py,$(addprefix tests/test_,losses losses_theory metrics calibration posthoc attention statistics \
    heads batches training checkpoints supervised distillation files datasets_voc datasets_coco datasets_custom \
    transforms models cli))
# Tests of the book, the slides, the quizzes, the project and the wheelhouse.
KIT := $(addsuffix .py,$(addprefix tests/test_,book slides quizzes_in_browser cheatsheet wheelhouse grading_runs))
# How many faults `make mutants` plants, and the draw of their places.
N ?= 100
SEED ?= 0
# Compiled modules are kept: a process that compiles PyTorch's takes 8 seconds longer to start.
export PYTHONDONTWRITEBYTECODE =

.PHONY: lab quick lint types test tests test-more slow slow-kit mutants notebooks shipped smoke course runs bench gpu gpu-pack soak \
    lessons shrink cheatsheet slides book wheelhouse readme lock clean

# uv resolves nothing here: it installs the versions of requirements.lock, all from one source.
$(ENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; assert (3, 11) <= sys.version_info[:2] < (3, 14), 'Python 3.11, 3.12 or 3.13 is needed, this is ' + sys.version.split()[0] + ': name another one with make PYTHON=...'"
	$(PYTHON) -m venv $(ENV)
	$(RUN) -m pip install --quiet uv
	$(RUN) -m uv pip install --quiet --compile-bytecode --python $(RUN) -r requirements.lock -e .
	$(RUN) -c "open('$(ENV)/ready', 'w').close()"

lab: $(ENV)/ready
	$(RUN) -m udlib doctor
	$(RUN) -m udlib lab

# The loop while working, within 90 seconds once the caches are warm.
quick: export OMP_NUM_THREADS = 1
quick: lint types
	$(RUN) -m pytest -q $(QUICK)

lint: $(ENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(BIN)/lint-imports

types: $(ENV)/ready
	$(RUN) -m mypy

# The parts run side by side, two at a time, each on a core of its own; the data sets are made first, once. So are the tests
# that launch processes which find each other through ports: notebooks' kernels pick free ports too, and bind them later.
test: export OMP_NUM_THREADS = 1
test: export UDLIB_PROGRESS = 0
test: $(ENV)/ready
	$(RUN) -m udlib prepare
	$(RUN) -m pytest $(LAUNCHED)
	$(MAKE) -j2 tests shipped smoke NOT="--ignore=$(LAUNCHED)"

tests: $(ENV)/ready
	$(RUN) -m pytest tests --doctest-modules udlib $(NOT)

# What is slow by nature: every lesson in the browser, kills and damaged files in bulk; and what is made for teachers and readers.
# Both parts run side by side, as in `make test`.
test-more: export OMP_NUM_THREADS = 1
test-more: export UDLIB_PROGRESS = 0
test-more: $(ENV)/ready
	$(RUN) -m udlib prepare
	$(MAKE) -j2 slow slow-kit

slow: $(ENV)/ready
	$(RUN) -m pytest tests -m slow $(addprefix --ignore=,$(KIT))

slow-kit: $(ENV)/ready
	$(RUN) -m pytest $(KIT) -m slow

# Plants N single faults, drawn by SEED, and counts those that no test notices.
mutants: $(ENV)/ready
	$(RUN) -m tests.mutants $(N) $(SEED)

# The solved notebooks, which hold all cells: as shipped, and trained from nothing for a few steps on a copy.
notebooks: shipped smoke

shipped smoke: $(ENV)/ready
	$(RUN) notebooks/build.py $@

# Every notebook executed headless at the size of the course, then the table of results.
course: $(ENV)/ready
	$(RUN) notebooks/build.py execute
	$(RUN) -m udlib results

# Rebuilds the shipped results; resumable; ONLY=pattern takes a part, PLAN=1 only says what would be trained.
runs: $(ENV)/ready
	$(RUN) -m udlib runs --jobs 0 $(if $(ONLY),--only "$(ONLY)") $(if $(PLAN),--plan)

bench: $(ENV)/ready
	$(RUN) -m tests.benchmarks

# Nine minutes of one GPU: tests, speed, `photos` at 224 px; resumable; SMOKE=1 tries it on a CPU.
gpu: $(ENV)/ready
	$(RUN) -m udlib gpu $(if $(SMOKE),--smoke)

# The same as one folder, for a machine with a GPU that has no network.
gpu-pack: $(ENV)/ready
	$(RUN) -m udlib gpu-pack

soak: $(ENV)/ready
	$(RUN) -m pytest tests -m soak

# Every wheel of the lock with PyTorch's CPU build, for a room without a network; resumable; needs pip alone. OUT=folder,
# TORCH_INDEX=an index or a folder of wheels, CUDA=1 for the builds of the lock.
wheelhouse:
	$(PYTHON) docs/teaching/wheelhouse.py --out $(or $(OUT),wheelhouse) $(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)") $(if $(CUDA),--cuda)

# The course as HTML in build/book, from the stored outputs; it needs no network. It lists the slides of build/slides.
book: $(ENV)/ready
	$(RUN) -m docs.book.build

# For authors: diagrams, notebooks from their sources, their pictures stored small, README's generated parts, and the lock.
lessons: $(ENV)/ready
	$(RUN) -m notebooks.diagrams $(if $(ONLY),--only "$(ONLY)")
	$(if $(ONLY),,$(RUN) -m notebooks.moving_picture)
	$(RUN) notebooks/build.py write $(if $(ONLY),--only "$(ONLY)")

shrink: $(ENV)/ready
	$(RUN) notebooks/build.py shrink $(if $(ONLY),--only "$(ONLY)")

cheatsheet: $(ENV)/ready
	$(RUN) docs/cheatsheet/build.py

# One deck of slides for each lesson, as HTML that needs no network and as PDF, in build/slides; ONLY=03 builds one.
slides: $(ENV)/ready
	$(RUN) -m notebooks.slides $(if $(ONLY),--only "$(ONLY)")

readme: $(ENV)/ready
	$(RUN) -m udlib readme

lock: $(ENV)/ready
	$(RUN) -m uv pip compile --universal --no-header --no-annotate --python-version 3.11 --extra course --extra test --extra book --quiet pyproject.toml -o requirements.lock

clean:
	$(PYTHON) -c "import shutil; shutil.rmtree('$(ENV)', ignore_errors=True)"
