# `make help` lists what there is. A stamp in .venv keeps a second call from installing, or asking the network, again.
PYTHON ?= python3
# Not from the environment, where compilers and shells keep a HOST of their own.
HOST := http://localhost:8080
ARGS :=
BIN := .venv/bin
MLFLOW_DIR := runs/mlflow
MLFLOW_PORT := 5000

.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help: ## show this list
	@echo 'Image classification on Kubeflow Pipelines. Begin with `make run`.'
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'
	@echo
	@echo 'Options of the pipeline go into ARGS: make run ARGS="--help" lists them. Another Python: PYTHON=python3.12'

run: .venv/installed ## run the whole pipeline on this machine; options in ARGS="--models cnn --serve"
	$(BIN)/python pipelines/e2e.py --run $(ARGS)

serve: .venv/installed ## run the pipeline and keep serving the best model until Ctrl-C
	$(BIN)/python pipelines/e2e.py --run --serve $(ARGS)

compile: .venv/installed ## write compiled/: the pipelines and each component as IR YAML
	$(BIN)/python pipelines/e2e.py --compile
	$(BIN)/python pipelines/retrain.py --compile
	$(BIN)/python pipelines/vertex.py --compile
	$(BIN)/python -m kfp_image_classification.pipelines.runner.compiled

images: ## build the container images with docker, podman or buildah; IMAGE_PREFIX=registry/team/ IMAGE_TAG=1.2
	images/build.sh

images-import: ## copy the built images into a local k3d or kind cluster
	images/import.sh

cluster: ## create a local k3d cluster with all that the pipeline needs; TRAINER=1 adds Kubeflow Trainer
	cluster/create.sh

cluster-delete: ## remove the local cluster and everything in it
	cluster/delete.sh

check: .venv/installed ## tell what the cluster lacks for the pipeline; options in ARGS="--namespace team"
	$(BIN)/python pipelines/e2e.py --check $(ARGS)

submit: .venv/installed ## run the pipeline on a cluster; HOST=http://localhost:8080, options in ARGS="--wait"
	$(BIN)/python pipelines/e2e.py --submit --host "$(HOST)" $(ARGS)

test-tools: ## install the programs that the tests need (Chromium, Prometheus, shellcheck and so on) with apt-get
	tests/install_tools.sh

# With two processes, as many tests wait for something, and a training takes two cores.
test: .venv/installed ## run the tests (a few minutes)
	$(BIN)/python -m pytest -n 2 -m "not slow and not cluster" $(ARGS)

test-all: .venv/installed ## run the slow tests too, and those for a live cluster where there is one
	$(BIN)/python -m pytest $(ARGS)

# From within that folder: in a URI, its path would have to be quoted, in another way for each of the two options.
mlflow: .venv/installed ## start an MLflow server that keeps everything under runs/mlflow; use it with ARGS="--mlflow-uri http://127.0.0.1:5000"
	@case "$$PWD" in *%*) echo "error: $$PWD: MLflow cannot run from a folder with % in its path; move the repository" >&2; exit 1;; esac
	@mkdir -p "$(MLFLOW_DIR)"
	python="$$(cd "$(BIN)" && pwd)/python" && cd "$(MLFLOW_DIR)" && \
	  MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true exec "$$python" -m mlflow server --workers 1 \
	  --host 127.0.0.1 --port $(MLFLOW_PORT) --backend-store-uri sqlite:///mlflow.db --artifacts-destination ./artifacts

tensorboard: .venv/installed ## show the learning curves of the last run's models, and what their workers logged
	$(BIN)/python -m tensorboard.main --logdir runs/latest/tensorboard $(ARGS)

dashboard: .venv/installed ## write the Grafana dashboard and the alerts in manifests/monitoring
	$(BIN)/python manifests/monitoring/render.py

bench-train: .venv/installed .venv/pytorch/installed ## measure training speed against the original's way, PyTorch and the bound (twenty minutes)
	$(BIN)/python -m benchmarks.train.run $(ARGS)
	$(BIN)/python -m benchmarks.train.accuracy

bench-workers: .venv/installed ## train with 2, 4, 8 ... workers, as many as there are cores, against as many that do not talk (ten minutes)
	$(BIN)/python -m benchmarks.train.workers $(ARGS)

bench-scale: .venv/installed ## measure 2 to 16 workers, each with a link of 1 or 10 Gbit/s; as root (fifteen minutes)
	$(BIN)/python -m benchmarks.scale.run $(ARGS)

bench-ingest: .venv/installed ## measure ingest against TFDS's own writer and the bound, digits and photographs (ten minutes)
	$(BIN)/python -m benchmarks.ingest.run $(ARGS)

bench-photographs: .venv/installed ## run the whole pipeline on 20,000 photographs, ingested at once and in parts (half an hour)
	$(BIN)/python -m benchmarks.ingest.whole_run $(ARGS)

bench-reading: .venv/installed ## measure bytes read by each worker, and memory at 1x and 10x data, and how fast it is (five minutes)
	$(BIN)/python -m benchmarks.train.reading
	$(BIN)/python -m benchmarks.train.reading_speed $(ARGS)

bench-soak: .venv/installed ## train 20,000 steps, and ask a server 500,000 times: nothing may grow or slow down (half an hour)
	$(BIN)/python -m benchmarks.soak.training $(ARGS)
	$(BIN)/python -m benchmarks.soak.serving

bench-gpu: .venv/installed ## measure training on a GPU against Keras' fit and the bound (ten minutes); skipped without one
	$(BIN)/python -m benchmarks.gpu.run $(ARGS)

bench-select: .venv/installed ## simulate how often a model is deployed that is no better (half a minute)
	$(BIN)/python -m benchmarks.select.run $(ARGS)

bench-serve: .venv/installed .venv/mlserver/installed ## measure the model server against kserve's, mlserver and the bound (five minutes)
	$(BIN)/python -m benchmarks.serve.run --mlserver-python .venv/mlserver/bin/python $(ARGS)

load: .venv/installed ## ask a service for 30 s from 5 clients: make load URL=http://HOST:PORT ARGS="--name image-classifier"
	$(BIN)/python -m benchmarks.serve.load --url "$(URL)" $(ARGS)

lint: .venv/installed ## check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

lock: .venv/installed ## renew requirements.lock, and those of the images, from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock
	images/lock.sh $(BIN)/uv

clean: ## remove the environment and all runs
	rm -rf .venv runs

.venv/installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...") if not (3, 11) <= sys.version_info < (3, 14) else 0'
	@case "$$PWD" in *[\$$:]*) echo "error: $$PWD: neither venv nor setuptools can work in a folder with : or \$$ in its path; move the repository" >&2; exit 1;; esac
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@mkdir -p .venv/types && ln -sfn ../.. .venv/types/kfp_image_classification
	@touch $@

.venv/mlserver/installed: .venv/installed benchmarks/serve/mlserver.txt
	$(BIN)/python -m venv .venv/mlserver
	.venv/mlserver/bin/python -m pip install --quiet --requirement benchmarks/serve/mlserver.txt
	@touch $@

.venv/pytorch/installed: .venv/installed benchmarks/train/pytorch.txt
	$(BIN)/python -m venv .venv/pytorch
	.venv/pytorch/bin/python -m pip install --quiet --no-deps --requirement benchmarks/train/pytorch.txt
	@touch $@
