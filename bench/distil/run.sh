#!/usr/bin/env bash
# The table of docs/compress.md about distillation: for three seeds a teacher (the main job), a student alone, and the same student, for as many epochs, with that teacher.
# bench/distil/run.sh [FOLDER]
set -euo pipefail
out=${1:-runs/distil}
joule=$(mktemp -d)/joule
go build -o "$joule" ./cmd/joule
mkdir -p "$out"
for seed in 0 1 2; do
	"$joule" train mnist --seed $seed --json --quiet --out "$out/teacher-$seed" | tail -n 1
	"$joule" train bench/distil/student.yaml --seed $seed --json --quiet --out "$out/alone-$seed" | tail -n 1
	{
		cat bench/distil/student.yaml
		echo "distil: {teacher: $(realpath "$out"/teacher-$seed/*/model.safetensors), temperature: 4, weight: 0.9, cache: true}"
	} >"$out/taught.yaml"
	"$joule" train "$out/taught.yaml" --seed $seed --json --quiet --out "$out/taught-$seed" | tail -n 1
done
