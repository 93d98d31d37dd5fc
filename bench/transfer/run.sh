#!/usr/bin/env bash
# The tables of docs/transfer.md about what transfer is worth: bench/transfer/run.sh [FOLDER [SEEDS [PART…]]], such as bench/transfer/run.sh runs/transfer "0 1 2" bag head.
# Parts, all of them without any: int8 (MiniLM with weights of 8 bits, made once), bag, head, head8, tune, scratch, base (the main network on both data sets), clothes, digits. Then it prints the tables.
# Data: joule data get debian-sections, all-minilm-l6-v2, fashion-mnist. Joules are right if nothing else runs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-runs/transfer} seeds=${2:-0 1 2}
parts=("${@:3}")
[ ${#parts[@]} -gt 0 ] || parts=(int8 bag head head8 tune scratch base clothes digits)
mkdir -p "$out"
out=$(realpath "$out")
joule=${JOULE:-}
if [ -z "$joule" ]; then
	joule=$(mktemp -d)/joule
	go build -o "$joule" ./cmd/joule
fi
data=${JOULE_DATA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/joule/data}

# train NAME SEED SPEC [SED…]: one run, its epochs and result in NAME-SEED.json. Each has a cache of features of its own, so that none finds what another has paid for.
train() {
	local name=$1 seed=$2 file=$3
	shift 3
	rm -rf "$out/data"
	mkdir "$out/data"
	for d in "$data"/*; do
		[ "$(basename "$d")" = results ] || ln -s "$d" "$out/data/"
	done
	sed -e "s/SEED/$seed/" "$@" "$file" >"$out/$name-$seed.yaml"
	JOULE_DATA_DIR=$out/data "$joule" train "$out/$name-$seed.yaml" --seed "$seed" --json --quiet --out "$out/runs" >"$out/$name-$seed.part"
	mv "$out/$name-$seed.part" "$out/$name-$seed.json"
}

# few NAME SEED DATA FROM: the main network on 1,000 pictures of DATA, from scratch, on top of what it has learned on FROM, and with those convolutions frozen.
few() {
	local name=$1 seed=$2 base
	local own=(-e "s/DATA/$3/")
	base=$(echo "$out/base-$4"/2*/model.safetensors)
	train "$name-scratch" "$seed" "$here/few.yaml" "${own[@]}"
	train "$name-from" "$seed" "$here/few.yaml" "${own[@]}" -e "\$a transfer: {from: $base, load: [\"conv*\", dense]}"
	train "$name-frozen" "$seed" "$here/few.yaml" "${own[@]}" -e "\$a transfer: {from: $base, load: [\"conv*\", dense], freeze: [\"conv*\"], cache: true}"
}

for part in "${parts[@]}"; do
	case $part in
	int8) "$joule" quantize all-minilm-l6-v2 --weights int8 --data debian-sections --to "$out/minilm-int8.safetensors" ;;
	base)
		for d in mnist fashion-mnist; do
			rm -rf "$out/base-$d"
			"$joule" train $d --epochs 3 --json --quiet --out "$out/base-$d" | tail -n 1
		done
		;;
	bag | tune | scratch | head | head8 | clothes | digits)
		for seed in $seeds; do
			case $part in
			head) train head "$seed" "$here/head.yaml" -e s/MODEL/all-minilm-l6-v2/ ;;
			head8) train head8 "$seed" "$here/head.yaml" -e "s#MODEL#$out/minilm-int8.safetensors#" ;;
			clothes) few clothes "$seed" fashion-mnist mnist ;;
			digits) few digits "$seed" mnist fashion-mnist ;;
			*) train "$part" "$seed" "$here/$part.yaml" ;;
			esac
		done
		;;
	*) echo "there is no part $part" >&2 && exit 2 ;;
	esac
done
python3 "$here/table.py" "$out"
