#!/usr/bin/env bash
# What weights of 8 and 4 bits do to recurrent networks: MNIST read line by line by 128 units, 2 epochs, seeds 0 to 2. Test accuracy in f32, int8 and int4.
# Usage: bench/compress/recurrent.sh [FOLDER]
set -euo pipefail
folder=${1:-$(mktemp -d)}
joule=$(mktemp)
trap 'rm -f "$joule"' EXIT
go build -o "$joule" ./cmd/joule
cd "$folder"
echo "layer seed f32 int8 int4"
for layer in LSTM GRU; do
	for seed in 0 1 2; do
		cat >"$layer$seed.yaml" <<-END
			name: $layer$seed
			data: mnist
			model:
			  - Reshape: {target_shape: [28, 28]}
			  - $layer: {units: 128}
			  - Dense: {units: 10, activation: softmax}
			compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
			fit: {epochs: 2, batch_size: 32}
		END
		"$joule" train "$layer$seed.yaml" --seed $seed --quiet >/dev/null
		row="$layer $seed"
		for weights in int8 int4; do
			"$joule" quantize --weights $weights --to "$layer$seed.$weights.safetensors" --json >"$layer$seed.$weights.json"
		done
		f32=$(sed -E 's/.*"before":\{"metrics":\[[^]]*"accuracy","value":([0-9.]+).*/\1/I' "$layer$seed.int8.json")
		int8=$(sed -E 's/.*"after":\{"metrics":\[[^]]*"accuracy","value":([0-9.]+).*/\1/I' "$layer$seed.int8.json")
		int4=$(sed -E 's/.*"after":\{"metrics":\[[^]]*"accuracy","value":([0-9.]+).*/\1/I' "$layer$seed.int4.json")
		echo "$row $f32 $int8 $int4"
	done
done
