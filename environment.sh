# To be sourced. Sets $PYTHON: an active environment that has the packages, else .venv, made from requirements.txt when missing.
needed="numpy, torch, torchvision, sklearn, PIL, tqdm, filelock, tensorboard, matplotlib${TEST_PACKAGES:+, $TEST_PACKAGES}"
if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && python -c "import $needed" 2>/dev/null; then
    PYTHON=python
else
    PYTHON=.venv/bin/python
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: python3 must be Python 3.10 or newer." >&2
        exit 1
    fi
    ours=.venv/installed.txt # what was installed; a .venv that somebody else made is left alone where it has all
    if ! cmp -s requirements.txt $ours && { [ -e $ours ] || ! $PYTHON -c "import $needed" 2>/dev/null; }; then
        echo "Installing the packages of requirements.txt into .venv (about 6 GB with torch, a minute or more) ..."
        $PYTHON -c "" 2>/dev/null || python3 -m venv --clear .venv # one that works is brought up to date
        $PYTHON -m pip install --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt $ours
    fi
fi
