#!/usr/bin/env bash
# Fetches the real operators' definitions, in the versions of cluster/versions.sh, for tests that skip without them:
#   tests/kubernetes_api/fetch_definitions.sh FOLDER && CRDS_DIR=FOLDER make test
set -euo pipefail
folder=${1:?name a folder}
# shellcheck source=cluster/versions.sh
source "$(dirname "$0")/../../cluster/versions.sh"

# A definition's name, and where its project keeps it.
fetch() {
  curl --fail --silent --show-error --location --retry 5 --output "$folder/$1.yaml.partial" \
    "https://raw.githubusercontent.com/$2"
  mv "$folder/$1.yaml.partial" "$folder/$1.yaml"
}

mkdir -p "$folder"
operator=kubeflow/trainer/$TRAINING_OPERATOR_VERSION/manifests/base/crds
trainer=kubeflow/trainer/$TRAINER_VERSION/manifests/base/crds
kserve=kserve/kserve/$KSERVE_VERSION/config/crd/full
fetch tfjobs.kubeflow.org "$operator/kubeflow.org_tfjobs.yaml"
fetch trainjobs.trainer.kubeflow.org "$trainer/trainer.kubeflow.org_trainjobs.yaml"
fetch clustertrainingruntimes.trainer.kubeflow.org "$trainer/trainer.kubeflow.org_clustertrainingruntimes.yaml"
fetch inferenceservices.serving.kserve.io "$kserve/serving.kserve.io_inferenceservices.yaml"
