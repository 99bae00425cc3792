# shellcheck shell=bash
# What `make cluster` installs. Each version is named once, here; preflight's remedies name the same, as a test checks.
export CLUSTER=${CLUSTER:-image-classification}
export K3S_IMAGE=rancher/k3s:v1.33.5-k3s1
export CERT_MANAGER_VERSION=v1.17.0
export PIPELINES_VERSION=2.17.0
export TRAINING_OPERATOR_VERSION=v1.9.3
export TRAINER_VERSION=v2.3.0
export KSERVE_VERSION=v0.21.0
