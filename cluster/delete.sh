#!/usr/bin/env bash
# Removes the local cluster, with its volumes and everything that runs in it. The images stay in docker.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=cluster/versions.sh
source cluster/versions.sh

if k3d cluster list "$CLUSTER" >/dev/null 2>&1; then
  k3d cluster delete "$CLUSTER"
else
  echo "there is no cluster $CLUSTER"
fi
