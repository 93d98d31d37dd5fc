#!/usr/bin/env bash
# The tables of docs/compress.md about the search: three seeds of the main network, each searched by joules and by parameters, then measured again, for which nothing else should run.
# bench/compress/search.sh [DATA [FOLDER]]: mnist (the default) or fashion-mnist
# A short form, to try it: SEEDS=0 BASE=1 EPOCHS=1 ROUNDS=1 bench/compress/search.sh
set -euo pipefail
data=${1:-mnist} out=${2:-runs/search}
seeds=${SEEDS:-0 1 2} base=${BASE:-10} epochs=${EPOCHS:-5} rounds=${ROUNDS:-6}
joule=${JOULE:-}
if [ -z "$joule" ]; then
	joule=$(mktemp -d)/joule
	go build -o "$joule" ./cmd/joule
fi
for seed in $seeds; do
	to=$out/$data-$seed
	if [ -e "$to" ]; then
		echo "$to is there already: name another folder" >&2
		exit 2
	fi
	"$joule" train "$data" --seed "$seed" --epochs "$base" --quiet --out "$to/base"
	"$joule" compress "$to"/base/*/model.safetensors --data "$data" --target joules --max-drop 0.2% --held test --epochs "$epochs" --rounds "$rounds" --out "$to/joules" --to "$to/joules.safetensors"
	"$joule" compress "$to"/base/*/model.safetensors --data "$data" --target parameters --max-drop 0.2% --held test --epochs "$epochs" --rounds "$rounds" --out "$to/parameters" --to "$to/parameters.safetensors"
done
for seed in $seeds; do
	for target in joules parameters; do
		echo "seed $seed, by $target"
		"$joule" compress --measure last --out "$out/$data-$seed/$target" --to "$out/$data-$seed/$target.safetensors"
	done
done
# The best's round as floats is what can still learn.
for seed in $seeds; do
	to=$out/$data-$seed
	floats=$(python3 -c '
import glob, json, sys
r = json.load(open(glob.glob(sys.argv[1] + "/*/search.json")[0]))["result"]
best = next(c["round"] for c in r["candidates"] if c["name"] == r["best"])
print(next(c["file"] for c in r["candidates"] if c["round"] == best and c["format"] == "f32"))' "$to/joules")
	"$joule" pack "$floats" --data "$data" --sparsity 0.6 --values 15 --int8 --epochs 1 --to "$to/packed.safetensors"
done
