#!/usr/bin/env bash
# find_python.sh PYTHON TOOLS: prints the path of a Python that fits the project, PYTHON itself if it does, and puts uv
# into the folder TOOLS, which finds or fetches one otherwise. Ends with 2 and one line where that fails.
set -euo pipefail
given=$1 tools=$2
wanted=$(sed -nE 's/^requires-python = "(.*)"/\1/p' pyproject.toml)
pinned=$(grep -oE '^uv==[^ ]+' requirements.lock)

fail() {
    echo "setup: $*" >&2
    exit 2
}

# The interpreter itself, if it fits: where the environment is activated, `python3` is the one that will go away.
fitting() {
    "$1" - "$wanted" "$(uname -m)" 2>/dev/null <<'PYTHON'
import platform, re, sys, sysconfig
low, high = (tuple(map(int, version.split("."))) for version in re.findall(r"\d+\.\d+", sys.argv[1]))
fits = (
    low <= sys.version_info[:2] < high
    and sys.implementation.name == "cpython"
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
    and sys.maxsize > 2**32
    and platform.machine() == sys.argv[2]
)
if not fits:
    sys.exit(1)
print(sys._base_executable)
PYTHON
}

# What uv fetches must outlive the set-up. Where there is no home to keep it in, it stays beside the environment.
if [[ ! -w ${HOME-} ]]; then
    export UV_CACHE_DIR=$tools/cache UV_PYTHON_INSTALL_DIR=$PWD/.uv/python
fi

version=$("$given" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' 2>/dev/null) ||
    version="not a Python that runs"
uv=$tools/env/bin/uv
problem="it takes Python 3.8 or newer to begin with, e.g. make setup PYTHON=python3.12"
if "$given" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
    pip=("$tools/env/bin/python" -m pip install)
    "$given" -m venv "$tools/env" >/dev/null 2>&1 || pip=("$given" -m pip install --target "$tools/env")
    problem=$("${pip[@]}" --quiet --disable-pip-version-check "$pinned" 2>&1) || true
    [[ $problem != *"No module named pip" ]] ||
        problem="it has neither venv nor pip, which Debian and Ubuntu keep apart, in python3-venv"
fi
[[ -x $uv ]] || uv=$(command -v uv) || fail "PYTHON=$given is $version and can't install uv: $(tail -n 1 <<<"$problem")"
ln -s "$uv" "$tools/uv"

fitting "$given" && exit

# A version manager keeps each Python in a folder of its own, beside that of the one that is given.
beside=
for folder in "$("$given" -c 'import sys; print(sys.base_prefix)' 2>/dev/null)"/../*/bin; do beside+=:$folder; done
find_one() { PATH=$PATH$beside "$uv" python find --system --no-project "cpython$wanted" 2>/dev/null; }

if ! { found=$(find_one) && found=$(fitting "$found"); }; then
    if ! problem=$("$uv" python install --no-bin "cpython$wanted" 2>&1); then
        rm -rf .uv  # holds none that fits
        fail "PYTHON=$given is $version, no other Python here is $wanted, and uv can't fetch one:" \
            "$(tail -n 1 <<<"$problem" | sed 's/^ *cause: //')"
    fi
    found=$("$uv" python find --managed-python --no-project "cpython$wanted")
fi
echo "setup: PYTHON=$given is $version; taking $found, $("$found" --version)" >&2
echo "$found"
