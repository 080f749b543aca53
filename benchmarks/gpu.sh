#!/usr/bin/env bash
# Every benchmark that a GPU decides, with what the documentation shows of it; about 20 minutes.
#
#     benchmarks/gpu.sh OUT          on a CUDA device
#     DEVICE=cpu SMALL=1 benchmarks/gpu.sh OUT      a rehearsal with tiny models, in minutes
set -euo pipefail
out=${1:?usage: benchmarks/gpu.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
device=${DEVICE:-cuda}
mkdir -p "$out"
few=()
[ -n "${SMALL:-}" ] && few=(--models test_vit --sizes 160 --batch 2 --rounds 1)
$python "$here/accelerator.py" --device "$device" "${few[@]}" --profile "$out/profiles" | tee "$out/accelerator.md"
$python -c "from refocus.demo.example import write; write('$out/example')"
given=(--model "$out/example/model" --images "$out/example/images" --masks "$out/example/masks")
$python "$here/waits.py" "${given[@]}" ${SMALL:+--most 20 --rounds 1} --only commands | tee "$out/waits.md"
cd "$here/.." && $python -m pytest -q -m gpu -n 0 tests | tee "$out/tests.txt"
