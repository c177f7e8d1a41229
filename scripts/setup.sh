#!/usr/bin/env bash
# Builds the environment from the lock. A failed or interrupted install leaves no environment behind.
set -euo pipefail
python=${1:?usage: setup.sh PYTHON VENV EXTRAS} venv=$2 extras=$3

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || {
    echo "setup: PYTHON=$python is $("$python" --version 2>&1 | head -n 1); takes Python 3.11 to 3.13, e.g. make setup PYTHON=python3.12" >&2
    exit 2
}

# The interpreter itself: where the environment is activated, `python3` is the one that goes away here.
python=$("$python" -c 'import sys; print(sys._base_executable)')
rm -rf "$venv"
trap 'rm -rf "$venv"' EXIT
echo "setup: making $venv from requirements.lock: TensorFlow and what it needs, about 3 GB, a minute or a few" >&2
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep -oE '^uv==[^ ]+' requirements.lock)"
flags=()
for extra in ${extras//,/ }; do flags+=(--extra "$extra"); done
[[ -t 2 ]] || flags+=(--quiet)  # on a terminal uv shows how far it is
"$venv/bin/uv" pip install --python "$venv/bin/python" --verify-hashes --compile-bytecode \
    --requirements pyproject.toml "${flags[@]}" --constraint requirements.lock
trap - EXIT
echo "setup: done in $SECONDS s" >&2
