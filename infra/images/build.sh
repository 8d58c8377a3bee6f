#!/usr/bin/env bash
# Builds the images:
#   infra/images/build.sh local [cpu|cuda] [OPTION…]      for this host alone, as gkd-service:dev and gkd-worker:dev
#   infra/images/build.sh REGISTRY [cpu|cuda] [OPTION…]   pushes them, and pins what was pushed
# Options are those of docker buildx build; the file that GKD_BUILD_OPTIONS names has more, one a line. Behind a mirror they are the
# secrets that the Dockerfile's head describes. Needs Docker with BuildKit, and packages of Python and Debian.
set -euo pipefail

fail() { echo "build.sh: $1" >&2; exit 2; }

registry=${1:?local, or registry and path, such as registry.company.example/ml}
torch=${2:-cuda}
options=("${@:3}")
cd "$(dirname "$0")/../.."
if [ -n "${GKD_BUILD_OPTIONS:-}" ]; then
    [ -r "$GKD_BUILD_OPTIONS" ] || fail "GKD_BUILD_OPTIONS: $GKD_BUILD_OPTIONS: no file; expected one with options of docker buildx build"
    mapfile -t more < <(grep --extended-regexp '.' "$GKD_BUILD_OPTIONS")
    options+=("${more[@]}")
fi

# Before anything is built: the old builder knows no mounts, and builds what nobody asked for, torch with CUDA among it.
command -v docker >/dev/null || fail "no docker; install Docker Engine with its plugin buildx"
docker buildx version >/dev/null 2>&1 \
    || fail "this docker has no BuildKit (docker buildx); install its plugin: docker-buildx-plugin of Docker, docker-buildx of Debian 13"
docker version >/dev/null 2>&1 || fail "no engine answers at ${DOCKER_HOST:-the usual socket}; start it, or name it by DOCKER_HOST"
case "$torch" in
    cpu | cuda) ;;
    *) fail "torch: given $torch; allowed: cpu, cuda" ;;
esac
revision=$(git rev-parse HEAD)
changed=$(git diff --quiet HEAD || echo +changes)
arguments=(--file infra/images/Dockerfile --build-arg "TORCH=$torch" --build-arg "REVISION=$revision$changed")

if [ "$registry" = local ]; then
    for target in service worker; do
        docker buildx build "${arguments[@]}" --target "$target" --tag "gkd-$target:dev" --load "${options[@]}" .
    done
    exit 0
fi

[ -z "$changed" ] || fail "uncommitted changes; an image is to be what its revision says"
pins=()
for target in service worker; do
    image=$registry/gkd-$target
    metadata=$(mktemp)
    docker buildx build "${arguments[@]}" --target "$target" --tag "$image:$revision" \
        --provenance=true --sbom=true --push --metadata-file "$metadata" "${options[@]}" .
    digest=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$metadata")
    rm "$metadata"
    pins+=("gkd-$target=$image@$digest")
done
python3 infra/images/pin.py infra/kubernetes/overlays/prod "${pins[@]}"
