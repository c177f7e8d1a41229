#!/usr/bin/env bash
# Resolves requirements.lock for every supported Python and every extra: names, versions and hashes, no addresses.
set -euo pipefail
uv=${1:?usage: lock.sh UV [OPTION…]}
shift
# backports-strenum 1.3 admits only Python below 3.11, which uv 0.13 overlooks.
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
echo 'backports-strenum<1.3' >"$constraints"
"$uv" pip compile --quiet --universal --generate-hashes --no-header --no-annotate --all-extras \
    --python-version 3.11 --constraint "$constraints" pyproject.toml --output-file requirements.lock "$@"
