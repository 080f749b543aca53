#!/usr/bin/env bash
# A rehearsal of two machines on one: two torchrun groups that meet on the loopback address tune the
# demo's small ViT, are sent SIGTERM as a scheduler would before it takes the machines away, and
# start again with the same command. Ends with 0 where the weights are those of a run that was never
# stopped, and a shared audit says what one process says.
#
#     scripts/two_nodes.sh FOLDER     (a new folder)
set -euo pipefail
work=${1:?usage: scripts/two_nodes.sh FOLDER}
mkdir "$work"
work=$(cd "$work" && pwd)
python=${PYTHON:-python}
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
$python -c "from refocus.demo.example import write; write('$work/example')"
given=(--model "$work/example/model" --images "$work/example/images" --masks "$work/example/masks")

nodes() { # the command on both nodes; the port differs from call to call
  port=$1
  shift
  for rank in 0 1; do
    $python -m torch.distributed.run --nnodes 2 --node-rank $rank --nproc-per-node 1 \
      --master-addr 127.0.0.1 --master-port "$port" -m refocus "$@" > "$work/node-$rank.$port.log" 2>&1 &
    pids[rank]=$!
  done
}
ended() { for rank in 0 1; do wait "${pids[rank]}" && status[rank]=0 || status[rank]=$?; done; }

tune=(tune "${given[@]}" --shots 2 --epochs 8 --no-do-no-harm)
nodes 29511 "${tune[@]}" --out "$work/whole"
ended
echo "never stopped: status ${status[*]}"

nodes 29512 "${tune[@]}" --out "$work/stopped"
until grep -qs . "$work/stopped/history.jsonl"; do sleep 0.2; done # one epoch is done
kill -TERM "${pids[@]}"
ended
echo "stopped after $(wc -l < "$work/stopped/history.jsonl") of 8 epochs: status ${status[*]}"
nodes 29513 "${tune[@]}" --out "$work/stopped"
ended
echo "started again: status ${status[*]}, $(wc -l < "$work/stopped/history.jsonl") epochs"
cmp "$work"/{whole,stopped}/model/model.safetensors
echo "the same weights"

nodes 29514 audit "${given[@]}" --out "$work/audit-two"
ended
$python -m refocus audit "${given[@]}" --out "$work/audit-one" > /dev/null 2>&1
cmp "$work"/audit-{one,two}/audit.json
echo "the same audit"
