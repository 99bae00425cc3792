#!/usr/bin/env bash
# Writes each image's requirements.txt: those packages of requirements.lock that the image needs, with the same versions
# and hashes, less what images/left-out.txt and images/lean.toml name. python-tensorflow-gpu has NVIDIA's libraries as
# well. Called by `make lock` with the uv to use.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${1:-uv}

# lock IMAGE OPTION...: the input is on stdin, or a file among the options
lock() {
  local requirements=images/$1/requirements.txt
  # uv keeps the versions and hashes that it finds in the file it is to write.
  cp requirements.lock "$requirements"
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
    --config-file images/lean.toml --override images/left-out.txt --custom-compile-command "make lock" \
    "${@:2}" --output-file "$requirements"
}

# The requirements of an extra, without those of the package itself; of another, the one for a package.
extra() {
  python3 -c '
import sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print(*(line for line in extras[sys.argv[1]] if line.startswith(sys.argv[2])), sep="\n")
' "$1" "${2:-}"
}

# Train reads initial weights from buckets.
lock python-launcher --extra mlflow --extra buckets pyproject.toml
lock python-tensorflow --extra tensorflow --extra buckets --extra parquet pyproject.toml
# NVIDIA's libraries are in no other lock: an environment for development does without these gigabytes.
extra tensorflow tensorflow~ | sed 's/^tensorflow/&[and-cuda]/' |
  lock python-tensorflow-gpu --extra tensorflow --extra buckets pyproject.toml -
extra server | lock python-server -
{ extra collector; extra buckets; extra parquet; } | lock python-collector -
{ extra server; extra tensorflow tensorflow~; } | lock python-server-tensorflow -
