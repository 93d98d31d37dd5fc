#!/usr/bin/env bash
# Installs the peers into a virtual environment: bench/peers/install.sh [FOLDER], by default bench/peers/.venv.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/.venv}
python3 -m venv "$venv"
"$venv/bin/python" -m pip install -q -r "$here/requirements.txt" torch==2.15.0
# The torch wheel asks for CUDA packages and does not start without them, also on a CPU: several gigabytes.
