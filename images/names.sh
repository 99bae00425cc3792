# shellcheck shell=bash
# What building and importing images agree on: their names, and the program that handles them.

# The full names of all images, or of those whose folders are given.
image_names() {
  local image folder
  for folder in "$@"; do
    if [ ! -f "images/$folder/Dockerfile" ]; then
      echo "error: there is no image $folder; choose from $(cd images && echo python-*)" >&2
      return 1
    fi
  done
  python3 -c 'from components.cluster import images as i; print(i.TENSORFLOW_IMAGE, i.TENSORFLOW_GPU_IMAGE, i.LAUNCHER_IMAGE, i.SERVER_IMAGE, i.SERVER_TENSORFLOW_IMAGE, i.COLLECTOR_IMAGE, sep="\n")' |
    while read -r image; do
      if [ $# -eq 0 ] || [[ " $* " == *" $(image_folder "$image") "* ]]; then
        echo "$image"
      fi
    done
}

# registry.example.com/team/python-server:1.2 -> python-server
image_folder() {
  local name=${1##*/}
  echo "${name%%:*}"
}

# Kubernetes takes a name without a registry for one of docker.io; podman and buildah would put localhost/ before it.
full_name() {
  case ${1%%/*} in
    *.* | *:* | localhost) echo "$1" ;;
    *) echo "docker.io/$1" ;;
  esac
}

find_builder() {
  local builder
  for builder in ${BUILDER:-docker podman buildah}; do
    if command -v "$builder" >/dev/null && "$builder" info >/dev/null 2>&1; then
      echo "$builder"
      return
    fi
  done
  echo "error: none of ${BUILDER:-docker, podman and buildah} is installed and running" >&2
  return 1
}
