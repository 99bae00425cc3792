#!/usr/bin/env bash
# Creates a local cluster with all that the pipeline needs; run again, it completes what is not there yet.
# docs/local-kubeflow.md explains each step.
#
#   CLUSTER   the cluster's name (default: image-classification)
#   TRAINER   1: Kubeflow Trainer as well, for train_backend=trainjob
#   IMAGES    0: do not build and import the images
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=cluster/versions.sh
source cluster/versions.sh

main() {
  require docker k3d kubectl python3
  create_cluster
  install_cert_manager
  install_pipelines
  install_training_operator
  if [ "${TRAINER:-0}" = 1 ]; then
    install_trainer
  fi
  install_kserve
  if [ "${TRAINER:-0}" = 1 ]; then
    apply -k manifests/overlays/local-trainer
  else
    apply -k manifests/overlays/local
  fi
  if [ "${IMAGES:-1}" = 1 ]; then
    # All but the one for GPUs, which a cluster of containers does not have.
    local used=(python-tensorflow python-launcher python-server python-server-tensorflow python-collector)
    images/build.sh "${used[@]}"
    images/import.sh "${used[@]}"
  fi
  say "The cluster is ready. Next, in another terminal: the UI, at http://localhost:8080"
  echo "  kubectl --context k3d-$CLUSTER -n kubeflow port-forward svc/ml-pipeline-ui 8080:80"
  echo "and here:"
  echo "  make check"
  echo "  make submit ARGS=--wait"
}

say() {
  printf '\n%s\n' "$*"
}

require() {
  local program missing=()
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "error: install first: ${missing[*]} (docs/local-kubeflow.md tells from where)" >&2
    exit 1
  fi
}

# Always of this cluster, whatever the current context is.
kube() {
  kubectl --context "k3d-$CLUSTER" "$@"
}

# Server-side: the definitions of KServe and the Training Operator are too large for what the client would annotate.
apply() {
  kube apply --server-side --force-conflicts "$@"
}

wait_for_deployments() {
  kube --namespace "$1" wait --for=condition=Available --timeout=15m deployment "${@:2}"
}

create_cluster() {
  say "Cluster $CLUSTER ($K3S_IMAGE)"
  if k3d cluster list "$CLUSTER" >/dev/null 2>&1; then
    k3d cluster start "$CLUSTER"
  else
    # Nothing comes in through an ingress: the UI and the models are reached by port-forward.
    k3d cluster create "$CLUSTER" --image "$K3S_IMAGE" --servers 1 --agents 0 --wait \
      --k3s-arg "--disable=traefik@server:0"
  fi
  kubectl config use-context "k3d-$CLUSTER"
}

install_cert_manager() {
  say "cert-manager $CERT_MANAGER_VERSION, for KServe's webhooks"
  apply -f "https://github.com/cert-manager/cert-manager/releases/download/$CERT_MANAGER_VERSION/cert-manager.yaml"
  wait_for_deployments cert-manager --all
}

install_pipelines() {
  local manifests=github.com/kubeflow/pipelines/manifests/kustomize
  say "Kubeflow Pipelines $PIPELINES_VERSION, in namespace kubeflow"
  apply -k "$manifests/cluster-scoped-resources?ref=$PIPELINES_VERSION"
  kube wait --for=condition=Established --timeout=60s crd/applications.app.k8s.io
  apply -k "$manifests/env/platform-agnostic?ref=$PIPELINES_VERSION"
  wait_for_deployments kubeflow ml-pipeline ml-pipeline-ui workflow-controller
}

install_training_operator() {
  say "Training Operator $TRAINING_OPERATOR_VERSION, for TFJobs"
  apply -k "https://github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=$TRAINING_OPERATOR_VERSION"
  wait_for_deployments kubeflow training-operator
}

install_trainer() {
  say "Kubeflow Trainer $TRAINER_VERSION, for TrainJobs"
  apply -k "https://github.com/kubeflow/trainer.git/manifests/overlays/manager?ref=$TRAINER_VERSION"
  wait_for_deployments kubeflow-system --all
}

install_kserve() {
  local releases=https://github.com/kserve/kserve/releases/download/$KSERVE_VERSION
  say "KServe $KSERVE_VERSION in Standard mode: no Knative, no Istio"
  kube create namespace kserve --dry-run=client --output=yaml | apply -f -
  apply -f "$releases/kserve.yaml"
  # The controller reads its configuration when it starts.
  kube --namespace kserve patch configmap inferenceservice-config --type=merge --patch "$(standard_mode)"
  kube --namespace kserve rollout restart deployment kserve-controller-manager
  kube --namespace kserve rollout status deployment kserve-controller-manager --timeout=10m
  # Its stock runtimes; the webhook that checks them may need a moment after the restart.
  retry apply -f "$releases/kserve-cluster-resources.yaml"
}

# KServe keeps JSON inside a ConfigMap, so a patch has to hold the whole of each part.
standard_mode() {
  kube --namespace kserve get configmap inferenceservice-config --output=json | python3 -c '
import json, sys
data = json.load(sys.stdin)["data"]
deploy = {**json.loads(data.get("deploy", "{}")), "defaultDeploymentMode": "Standard"}
ingress = {**json.loads(data.get("ingress", "{}")), "disableIngressCreation": True, "disableIstioVirtualHost": True}
print(json.dumps({"data": {"deploy": json.dumps(deploy), "ingress": json.dumps(ingress)}}))
'
}

retry() {
  local attempt
  for attempt in 1 2 3 4 5 6; do
    if "$@"; then
      return
    fi
    echo "attempt $attempt failed; again in 10 s" >&2
    sleep 10
  done
  "$@"
}

main "$@"
