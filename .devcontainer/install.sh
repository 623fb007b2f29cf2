#!/usr/bin/env bash
# Installs the course into .venv with PyTorch's CPU build: the lock's versions, without its packages for CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv .venv
.venv/bin/python -m pip install --quiet uv
.venv/bin/python -m uv pip install --quiet --python .venv/bin/python --torch-backend cpu \
    --constraint requirements.lock --editable '.[course,test,book]'
touch .venv/ready # `make lab` then installs nothing
.venv/bin/python -m udlib prepare
.venv/bin/python -c "from pathlib import Path; from udlib.course.my_lessons import copy_lessons; copy_lessons(Path('notebooks'))"
.venv/bin/python -m udlib doctor
