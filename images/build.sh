#!/usr/bin/env bash
# Builds the images that components/cluster/images.py names: images/build.sh [IMAGE...], all without
#
#   IMAGE_PREFIX, IMAGE_TAG  other names than the default ones
#   BASE_IMAGE               the base, instead of the one in the Dockerfiles
#   BUILDER                  docker, podman or buildah; without it, the first of them that works
#   BUILD_OPTIONS            more options for the builder, such as --network=host
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=images/names.sh
source images/names.sh

read -r -a options <<<"${BUILD_OPTIONS:-}"
if [ -n "${BASE_IMAGE:-}" ]; then
  options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
fi
revision=${GIT_REVISION:-$(git rev-parse HEAD 2>/dev/null || true)}
builder=$(find_builder)

images=$(image_names "$@")
for image in $images; do
  folder=$(image_folder "$image")
  echo "building $image with $builder"
  "$builder" build "${options[@]}" --build-arg "GIT_REVISION=$revision" \
    --file "images/$folder/Dockerfile" --tag "$(full_name "$image")" .
done
