# Sourced by the other scripts, in the repository root: activate a Python and install $requirements.
# An active environment (venv or conda) is used; otherwise .venv is created and activated.
if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    python -m pip install --quiet -r "$requirements" || exit 1
else
    base=${PYTHON:-python3}
    if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: $base is $("$base" --version 2>&1); Python 3.10 or newer is needed (set PYTHON)" >&2
        exit 2
    fi
    if [ ! -x .venv/bin/python ]; then
        echo "creating .venv and installing $requirements (only once; takes some minutes)"
        "$base" -m venv .venv || exit 1
    fi
    . .venv/bin/activate
    python -m pip install --quiet --disable-pip-version-check \
        -r "$requirements" -c constraints.txt || exit 1
fi
