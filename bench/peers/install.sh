#!/usr/bin/env bash
# Installs the peers: bench/peers/install.sh [NAME…], by default all of: python gomlx candle burn burn-cpu.
#
# The Python peers come into a virtual environment (.venv), the others are built into bin/. Each is optional: where one cannot be built,
# bin/NAME.failed keeps the reason, which `joule bench --peers` prints below its table.
set -uo pipefail
cd "$(dirname "$0")"
mkdir -p bin
failed=0

# build NAME COMMAND…: runs it; on failure its last words become the reason.
build() {
	local name=$1 log
	shift
	rm -f "bin/$name" "bin/$name.failed"
	log=$(mktemp)
	if "$@" >"$log" 2>&1; then
		echo "$name: built"
	else
		{ printf 'it could not be built: '; grep -v '^[[:space:]]*$' "$log" | grep -m1 -i -E 'error|not found|refused|denied' || tail -n1 "$log"; } >"bin/$name.failed"
		echo "$name: $(cat "bin/$name.failed")" >&2
		failed=1
	fi
	rm -f "$log"
}

python() {
	# torch is not in requirements.txt: its wheel asks for CUDA packages and does not start without them, also on a CPU: several gigabytes.
	python3 -m venv .venv && .venv/bin/python -m pip install -q -r requirements.txt torch==2.15.0
}

gomlx() { (cd gomlx && GOWORK=off CGO_ENABLED=0 go build -o ../bin/gomlx .); }

# cargo NAME FOLDER [FLAGS]: release, link-time optimization and target-cpu=native are set in the folder.
rust() {
	local name=$1 folder=$2
	shift 2
	(cd "$folder" && cargo build --release --locked --target-dir "target/$name" "$@" && cp "target/$name/release/$folder-peer" "../bin/$name")
}

for p in "${@:-python gomlx candle burn burn-cpu}"; do
	for name in $p; do
		case $name in
		python) python || { echo "python: the environment could not be made" >&2; failed=1; } ;;
		gomlx) build gomlx gomlx ;;
		candle) build candle rust candle candle ;;
		burn) build burn rust burn burn ;;
		burn-cpu) build burn-cpu rust burn-cpu burn --features cpu ;;
		*) echo "there is no peer $name" >&2; exit 2 ;;
		esac
	done
done
exit $failed
