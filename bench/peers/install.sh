#!/usr/bin/env bash
# Installs the peers into a virtual environment: bench/peers/install.sh [FOLDER], by default bench/peers/.venv.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/.venv}
python3 -m venv "$venv"
"$venv/bin/python" -m pip install -q numpy==2.4.6 jax==0.10.2 jaxlib==0.10.2 optax tensorflow-cpu==2.21.0 keras==3.15.1 torch==2.15.0
# The torch wheel asks for CUDA packages and does not start without them, also on a CPU: several gigabytes.
