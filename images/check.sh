#!/usr/bin/env bash
# Runs images/check.py in each built image, and looks at the image's size: images/check.sh [IMAGE...], all without
#
#   IMAGE_PREFIX, IMAGE_TAG, BUILDER  as for images/build.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=images/names.sh
source images/names.sh

# In MB, with the base; an image that outgrows its number has been given something that nobody looked at.
declare -A LARGEST=([python-tensorflow]=2600 [python-tensorflow-gpu]=8000 [python-launcher]=600 [python-server]=500 [python-server-tensorflow]=2200 [python-collector]=500)

run_python() {
  case $builder in
    buildah)
      local container
      container=$(buildah from --pull-never "$(full_name "$1")")
      buildah run --isolation chroot "$container" -- python3 "${@:2}" || { buildah rm "$container" >/dev/null; return 1; }
      buildah rm "$container" >/dev/null
      ;;
    *) "$builder" run --rm --network none --entrypoint python3 "$1" "${@:2}" ;;
  esac
}

bytes() {
  case $builder in
    buildah)
      buildah inspect --type image --format '{{.Manifest}}' "$(full_name "$1")" |
        python3 -c 'import json, sys; print(sum(layer["size"] for layer in json.load(sys.stdin)["layers"]))'
      ;;
    *) "$builder" image inspect --format '{{.Size}}' "$1" ;;
  esac
}

builder=$(find_builder)
images=$(image_names "$@")
for image in $images; do
  folder=$(image_folder "$image")
  run_python "$image" -c "$(cat images/check.py)" "$folder"
  size=$(($(bytes "$image") / 1000000))
  echo "$folder: $size MB"
  if [ "$size" -gt "${LARGEST[$folder]}" ]; then
    echo "error: $image has $size MB, more than ${LARGEST[$folder]}" >&2
    exit 1
  fi
done
