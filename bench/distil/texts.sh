#!/usr/bin/env bash
# What docs/transfer.md says a teacher's texts are worth: a translator, and for each seed one a quarter as wide that learns from the training pairs, from what the translator writes about their sources, or from both.
# Prints BLEU of the test pairs, written greedily.
# bench/distil/texts.sh [FOLDER [SEED...]]
set -euo pipefail
out=$(realpath -m "${1:-runs/texts}")
shift || true
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2)
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/joule" ../../cmd/joule
mkdir -p "$out"
# train NAME SPECIFICATION SEED
train() {
	"$bin/joule" train "$2" --seed "$3" --quiet --threads "${THREADS:-0}" --out "$out/$1-$3" >"$out/$1-$3.txt"
	"$bin/joule" eval "$out/$1-$3"/*/model.safetensors --data "$(sed -n 's/^data: //p' translator.yaml)" --threads "${THREADS:-0}" --json >"$out/$1-$3.json"
	python3 -c 'import json, sys; print(sys.argv[1], next("%.2f" % w["bleu"]["Score"] for w in json.load(open(sys.argv[2]))["written"] if w["how"] == "the model"))' "$1, seed $3: BLEU" "$out/$1-$3.json"
}
train translator translator.yaml 0
for seed in "${seeds[@]}"; do
	train alone small-translator.yaml "$seed"
	for texts in teacher both; do
		{
			sed 's/^fit: {epochs: 16/fit: {epochs: '"$([ $texts = both ] && echo 8 || echo 16)"'/' small-translator.yaml # as many steps
			echo "distil: {teacher: $(echo "$out"/translator-0/*/model.safetensors), texts: $texts, beams: 5}"
		} >"$out/$texts.yaml"
		train "$texts" "$out/$texts.yaml" "$seed"
	done
done
