#!/usr/bin/env bash
# Installs torch and torchvision before all else: install-torch.sh FOLDER, in a build of the worker's image. Writes pins.txt, which is
# requirements.txt with what was installed in place of what it pins, be it another build or another version.
# They are the first of these that there is: wheels in the folder; for TORCH=cpu the index TORCH_INDEX, else PyTorch's own; PyPI's.
set -euo pipefail

shopt -s nullglob
wheels=("$1"/torch-*.whl "$1"/torchvision-*.whl)
mapfile -t pins < <(grep --extended-regexp --only-matching '^(torch|torchvision)==[^ ;]+' requirements.txt)

case "${TORCH:-}" in
    cuda) wanted=(--constraints requirements.txt torch torchvision) ;;
    # Without the pins' hashes, which are those of PyPI's files. And without what torch needs: an index of torch has old versions of it.
    cpu) wanted=("${pins[@]}") ;;
    *) echo "TORCH: given ${TORCH:-nothing}; allowed: cpu, cuda" >&2; exit 2 ;;
esac
if [ "${#wheels[@]}" -gt 0 ]; then
    [ "${#wheels[@]}" = 2 ] || { echo "$1: given ${wheels[*]}; expected a wheel of torch and one of torchvision" >&2; exit 2; }
    wanted=("${wheels[@]}")
elif [ -n "${TORCH_INDEX:-}" ]; then
    [ "$TORCH" = cpu ] || { echo "TORCH_INDEX: given for TORCH=$TORCH, which is PyPI's torch; give TORCH=cpu" >&2; exit 2; }
    wanted=(--index "$TORCH_INDEX" "${wanted[@]}")
elif [ "$TORCH" = cpu ]; then
    wanted=(--torch-backend cpu "${wanted[@]}")
fi
uv pip install --no-deps "${wanted[@]}"

installed=$(uv pip list --format freeze | grep --extended-regexp '^(torch|torchvision)==')
if [ "$installed" = "$(printf '%s\n' "${pins[@]}")" ]; then
    cp requirements.txt pins.txt
else
    # A pin goes on in the lines after it, which are indented.
    awk '/^[^ ]/ { gone = /^(torch|torchvision)==/ } !gone' requirements.txt > pins.txt
    echo "$installed" >> pins.txt
fi
