#!/usr/bin/env bash
# Copies the built images into the nodes of a local k3d or kind cluster: no registry is needed.
#
#   CLUSTER  the cluster's name; without it, the one that the current kubectl context names
#   BUILDER  docker, podman or buildah: where the images were built
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=images/names.sh
source images/names.sh

context=${CLUSTER:-$(kubectl config current-context)}
builder=$(find_builder)
archives=$(mktemp -d)
trap 'rm -rf "$archives"' EXIT

images=$(image_names "$@")
for image in $images; do
  archive="$archives/$(image_folder "$image").tar"
  case $builder in
    docker) docker save --output "$archive" "$image" ;;
    podman) podman save --format docker-archive --output "$archive" "$(full_name "$image")" ;;
    buildah) buildah push "$(full_name "$image")" "docker-archive:$archive:$(full_name "$image")" ;;
  esac
done

if command -v k3d >/dev/null && k3d cluster list "${context#k3d-}" >/dev/null 2>&1; then
  k3d image import --cluster "${context#k3d-}" "$archives"/*.tar
elif command -v kind >/dev/null && kind get clusters 2>/dev/null | grep -Fxq "${context#kind-}"; then
  for archive in "$archives"/*.tar; do
    kind load image-archive --name "${context#kind-}" "$archive"
  done
else
  echo "error: $context is neither a k3d nor a kind cluster; for another one, push the images to a registry:" >&2
  echo "  IMAGE_PREFIX=registry.example.com/team/ make images, push them, and compile with the same IMAGE_PREFIX" >&2
  exit 1
fi
