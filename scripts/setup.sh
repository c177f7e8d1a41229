#!/usr/bin/env bash
# Builds the environment from the lock, on a machine that has any Python from 3.8 on. A failed or interrupted set-up
# leaves no environment behind. Keeps to bash 3.2 and to the tools of macOS, as do the other scripts of the set-up.
set -euo pipefail
python=${1:?usage: setup.sh PYTHON VENV EXTRAS} venv=$2 extras=$3
scripts=$(dirname "$0")

bash "$scripts/check_machine.sh" "$extras"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python=$(bash "$scripts/find_python.sh" "$python" "$tools")  # and puts uv into $tools

stamp=$venv/installed-${extras//,/-}
if [[ ! -d $venv ]]; then
    what="making $venv from requirements.lock: TensorFlow and what it needs, about 3 GB, a minute or a few"
elif [[ -s $stamp && ! $(cat "$stamp") -ef $venv ]]; then
    what="$venv was made in $(cat "$stamp") and works only there; making it anew"
else
    what="making $venv anew, with EXTRAS=$extras; what is in uv's cache is not fetched again"
fi
rm -rf "$venv"
trap 'rm -rf "$tools" "$venv"' EXIT
echo "setup: $what" >&2
flags=(--python "$venv/bin/python" --verify-hashes --compile-bytecode --requirements pyproject.toml)
for extra in ${extras//,/ }; do flags+=(--extra "$extra"); done
[[ -t 2 ]] || flags+=(--quiet)  # on a terminal uv shows how far it is
"$tools/uv" venv --quiet --seed --python "$python" "$venv"  # needs no ensurepip, which Debian keeps apart
"$tools/uv" pip install "${flags[@]}" --constraint requirements.lock
trap 'rm -rf "$tools"' EXIT
echo "setup: done in $SECONDS s" >&2
