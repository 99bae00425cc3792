#!/usr/bin/env bash
# Writes each image's requirements.txt: those packages of requirements.lock that the image's extras need, with the same
# versions and hashes. Called by `make lock` with the uv to use.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${1:-uv}

lock() {
  local requirements=images/$1/requirements.txt extra options=()
  for extra in "${@:2}"; do
    options+=(--extra "$extra")
  done
  # uv keeps the versions and hashes that it finds in the file it is to write.
  cp requirements.lock "$requirements"
  "$uv" pip compile --quiet --universal --python-version 3.11 "${options[@]}" --generate-hashes --no-annotate \
    --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --output-file "$requirements"
}

lock python-launcher mlflow
lock python-tensorflow tensorflow
lock python-server tensorflow server
