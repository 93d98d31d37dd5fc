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
for seed in 0 1 2; do
	"$joule" pack "$out/$data-$seed/joules.safetensors" --data "$data" --to "$out/$data-$seed/joules.packed.safetensors"
done
