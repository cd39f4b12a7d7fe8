#!/usr/bin/env bash
# The whole pipeline on Qwen2.5-7B-Instruct, on a machine with one GPU (about 16 GB in bfloat16).
#
#   bash examples/pipeline_7b.sh [FOLDER]
#
# Prompts are PolyRefuse's (Apache-2.0): its English and translated train prompts fit the gate, Yoruba is
# calibrated and measured. For a language that PolyRefuse lacks, replace --data by starter or your own file.
set -euo pipefail

MODEL=Qwen/Qwen2.5-7B-Instruct
LAYER=15 # the paper's for this model; leave --layer out of fit-gate to have it chosen
WORK=${1:-artifacts/qwen2.5-7b}
DATA=$WORK/polyrefuse
export RECALIB_GATE=$WORK/gate.safetensors

mkdir -p "$WORK"
[ -d "$DATA" ] || git clone --depth 1 https://github.com/mainlp/Multilingual-Refusal "$DATA"

recalib extract --model "$MODEL" --data "$DATA" --langs high --splits train --layers "$LAYER" --out "$WORK/activations"
recalib fit-gate --activations "$WORK/activations" --layer "$LAYER" --out "$RECALIB_GATE"
recalib calibrate --lang yo --shots 4 --data "$DATA"
recalib inspect "$RECALIB_GATE"

# the gate alone: no generation
recalib extract --model "$MODEL" --data "$DATA" --langs yo --splits test --layers "$LAYER" --out "$WORK/activations"
recalib eval --activations "$WORK/activations" --langs yo

# what the model answers with and without it; completions go to FOLDER/eval for a judge of your choice
recalib eval --data "$DATA" --langs yo --methods base,recalib --limit 100 --out "$WORK/eval"
