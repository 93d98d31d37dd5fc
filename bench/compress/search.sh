#!/usr/bin/env bash
# The tables of docs/compress.md about the search: three seeds of the main network, each searched by joules and by parameters, then measured again, for which nothing else should run.
# bench/compress/search.sh [DATA [FOLDER]]: mnist (the default) or fashion-mnist
set -euo pipefail
data=${1:-mnist} out=${2:-runs/search}
joule=$(mktemp -d)/joule
go build -o "$joule" ./cmd/joule
for seed in 0 1 2; do
	to=$out/$data-$seed
	"$joule" train "$data" --seed $seed --quiet --out "$to/base"
	"$joule" compress "$to"/base/*/model.safetensors --data "$data" --target joules --max-drop 0.2% --held test --epochs 5 --rounds 6 --out "$to/joules" --to "$to/joules.safetensors"
	"$joule" compress "$to"/base/*/model.safetensors --data "$data" --target parameters --max-drop 0.2% --held test --epochs 5 --rounds 6 --out "$to/parameters" --to "$to/parameters.safetensors"
done
for seed in 0 1 2; do
	for target in joules parameters; do
		echo "seed $seed, by $target"
		"$joule" compress --measure last --out "$out/$data-$seed/$target" --to "$out/$data-$seed/$target.safetensors"
	done
done
# The best's round as floats is what can still learn.
for seed in 0 1 2; do
	to=$out/$data-$seed
	floats=$(python3 -c '
import glob, json, sys
r = json.load(open(glob.glob(sys.argv[1] + "/*/search.json")[0]))["result"]
best = next(c["round"] for c in r["candidates"] if c["name"] == r["best"])
print(next(c["file"] for c in r["candidates"] if c["round"] == best and c["format"] == "f32"))' "$to/joules")
	"$joule" pack "$floats" --data "$data" --sparsity 0.6 --values 15 --int8 --epochs 1 --to "$to/packed.safetensors"
done
