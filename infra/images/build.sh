#!/usr/bin/env bash
# Builds the images, pushes them, and pins what was pushed: infra/images/build.sh REGISTRY [cpu|cuda]
# Needs Docker with BuildKit, PyPI and Docker Hub; for cpu PyTorch's index too.
set -euo pipefail

registry=${1:?registry and path, such as registry.company.example/ml}
torch=${2:-cuda}
cd "$(dirname "$0")/../.."
revision=$(git rev-parse HEAD)
git diff --quiet HEAD || { echo "build.sh: uncommitted changes; an image is to be what its revision says" >&2; exit 2; }

pins=()
for target in service worker; do
    image=$registry/gkd-$target
    metadata=$(mktemp)
    docker buildx build --file infra/images/Dockerfile --target "$target" --tag "$image:$revision" \
        --build-arg "TORCH=$torch" --build-arg "REVISION=$revision" \
        --provenance=true --sbom=true --push --metadata-file "$metadata" .
    digest=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$metadata")
    rm "$metadata"
    pins+=("gkd-$target=$image@$digest")
done
python3 infra/images/pin.py infra/kubernetes/overlays/prod "${pins[@]}"
