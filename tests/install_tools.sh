#!/usr/bin/env bash
# `make test-tools`: installs the programs without which tests are skipped, as Debian's and Ubuntu's packages.
set -euo pipefail

# One line a tool: its package, then the names under which the tests look for it.
TOOLS="
chromium chromium chromium-browser google-chrome
prometheus prometheus
prometheus promtool
shellcheck shellcheck
kubernetes-client kubectl
curl curl
iproute2 ip
iproute2 tc
"

# Prints the lines of the tools that are not there.
missing() {
  local package names name
  while read -r package names; do
    for name in $names; do
      command -v "$name" >/dev/null && continue 2
    done
    echo "$package $names"
  done < <(grep . <<<"$TOOLS")
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

lines=$(missing)
if [ -z "$lines" ]; then
  echo "the tests' tools are installed"
  exit 0
fi
packages=$(cut -d ' ' -f 1 <<<"$lines" | sort -u)
if ! command -v apt-get >/dev/null; then
  echo "error: there is no apt-get here; install these programs with this system's own means:" >&2
  cut -d ' ' -f 2 <<<"$lines" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
  echo "error: neither root nor sudo; let an administrator run: apt-get install ${packages//$'\n'/ }" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
as_root apt-get update --quiet || echo "warning: the lists of packages could not all be renewed" >&2
for package in $packages; do
  # One by one: a package that this release does not have must not keep the others away.
  as_root apt-get install --yes --quiet --no-install-recommends "$package" || true
done
if grep -q "^prometheus$" <<<"$packages" && [ -d /run/systemd/system ]; then
  as_root systemctl disable --now prometheus || true  # the package starts a server, which the tests do not need
fi
lines=$(missing)
if [ -n "$lines" ]; then
  echo "error: these programs are still missing, as this release has no such package, or it could not be installed:" >&2
  awk '{ print "  " $2 " (package " $1 ")" }' <<<"$lines" >&2
  exit 1
fi
