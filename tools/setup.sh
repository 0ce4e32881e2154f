# Sourced by the other scripts, in the repository root: activate a Python and install $requirements.
# An active environment (venv or conda) is used; otherwise .venv is created and activated.
active=${VIRTUAL_ENV:-}${CONDA_PREFIX:-}
if [ -n "$active" ]; then
    base=python fix='deactivate the environment'
else
    base=${PYTHON:-python3} fix='set PYTHON'
fi
if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "error: $base is $("$base" --version 2>&1); Python 3.10 or newer is needed ($fix)" >&2
    exit 2
fi
if [ -n "$active" ]; then
    python -m pip install --quiet -r "$requirements" || exit 1
else
    if [ ! -x .venv/bin/python ]; then
        echo "creating .venv and installing $requirements (only once; takes some minutes)"
        "$base" -m venv .venv || exit 1
    fi
    . .venv/bin/activate
    python -m pip install --quiet --disable-pip-version-check \
        -r "$requirements" -c constraints.txt || exit 1
fi
