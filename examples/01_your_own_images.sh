#!/usr/bin/env bash
# Circuits of your own model on your own images, from the shell.
#
#   bash examples/01_your_own_images.sh FOLDER [options of `xaikit trace`]
#
# With no further options the embedded demo model looks at your images. For a real one:
#
#   bash examples/01_your_own_images.sh photos --model ViT-B-32 --pretrained openai --target-layer 8
set -euo pipefail
images=${1:?pass a folder of images}
shift
out=${XAIKIT_OUT:-circuits}
mkdir -p "$out"

# What `xaikit run-all --images FOLDER` does in one go, step by step.
xaikit trace --images "$images" "$@" --out "$out/trace.safetensors"
xaikit cluster --trace "$out/trace.safetensors" --holdout 0.5 --out "$out/features.safetensors"
xaikit fit --trace "$out/trace.safetensors" --features "$out/features.safetensors" \
    --out "$out/fit.safetensors"
xaikit circuit --fit "$out/fit.safetensors" --rank contrast \
    --heatmap-dir "$out/heatmaps" --out "$out/circuit.json"
xaikit causal --features "$out/features.safetensors" --fit "$out/fit.safetensors" \
    --out "$out/causal.json"
xaikit target-causal --trace "$out/trace.safetensors" --features "$out/features.safetensors" \
    --fit "$out/fit.safetensors" --circuit "$out/circuit.json" --out "$out/target_causal.json"
