#!/usr/bin/env bash
# The table of docs/compress.md about distillation: 2,000 labelled digits, and 60,000 without labels. For each seed a teacher; a student of a tenth of the parameters alone, with and without mixup; taught in the same views of the
# labelled pictures; taught on all pictures without labels; and on these by the best of those that learned alone. Students take 18,900 or 18,750 steps each. Accuracies are those of the last epoch.
# bench/distil/run.sh [FOLDER [SEED...]]
set -euo pipefail
out=$(realpath -m "${1:-runs/distil}")
shift || true
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2)
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/joule" ../../cmd/joule
mkdir -p "$out"
# train NAME SPECIFICATION SEED: what the run ended with goes to NAME-SEED.json
train() {
	rm -rf "${out:?}/$1-$3"
	"$bin/joule" train "$2" --seed "$3" --json --quiet --threads "${THREADS:-0}" --out "$out/$1-$3" | tail -n 1 >"$out/$1-$3.json"
	echo "$1, seed $3: $(accuracy "$1-$3")"
}
accuracy() { sed 's/.*"test_accuracy":\([0-9.]*\).*/\1/' "$out/$1.json"; }
# taught NAME SPECIFICATION TEACHER SEED [SETTINGS]: the student of a specification with a teacher
taught() {
	{
		cat "$2"
		echo "distil: {teacher: $(echo "$out/$3-$4"/*/model.safetensors), temperature: 4, weight: 1${5:-}}"
	} >"$out/$1-$4.yaml"
	train "$1" "$out/$1-$4.yaml" "$4"
}
sed 's/crop: 2/crop: 2, mixup: 0.2/' student.yaml >"$out/mixup.yaml"
sed 's/^data: .*/data: mnist/; s/^fit: .*/fit: {epochs: 10, batch_size: 32}/' student.yaml >"$out/all.yaml"
for seed in "${seeds[@]}"; do
	train teacher teacher.yaml "$seed"
	train alone student.yaml "$seed"
	train mixup "$out/mixup.yaml" "$seed"
	taught same "$out/mixup.yaml" teacher "$seed"
	taught unlabelled "$out/all.yaml" teacher "$seed" ", cache: true"
	best=alone
	[[ $(accuracy "mixup-$seed") < $(accuracy "alone-$seed") ]] || best=mixup
	taught self "$out/all.yaml" "$best" "$seed" ", cache: true"
done
python3 - "$out" "${seeds[@]}" <<'EOF'
import json, statistics, sys
out, seeds = sys.argv[1], sys.argv[2:]
rows = {n: [json.load(open(f"{out}/{n}-{s}.json"))["test_accuracy"] for s in seeds] for n in ["teacher", "alone", "mixup", "same", "unlabelled", "self"]}
for n in ["same", "unlabelled", "self"]:
    rows[f"{n}: of the gap"] = [(b - max(a, m)) / (t - max(a, m)) for t, a, m, b in zip(rows["teacher"], rows["alone"], rows["mixup"], rows[n])]
for n, v in rows.items():
    spread = statistics.stdev(v) if len(v) > 1 else 0
    print(f"| {n} |", " | ".join(f"{x:.4f}" for x in v), f"| {statistics.mean(v):.4f} ± {spread:.4f} |")
EOF
