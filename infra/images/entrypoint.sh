#!/bin/sh
# Runs a command with the secrets that its libraries read from the environment: each file /run/environment/NAME, a mounted
# secret, becomes the variable NAME. So no manifest, no `docker inspect` and no `kubectl describe` shows a value.
set -eu

for file in "${SECRET_ENVIRONMENT:-/run/environment}"/*; do
    [ -f "$file" ] || continue
    name=${file##*/}
    case "$name" in
        *[!A-Z0-9_]* | [0-9]*) echo "entrypoint: $file: not the name of a variable" >&2; exit 2 ;;
    esac
    value=$(cat -- "$file") # the newline at the end goes
    [ -n "$value" ] || { echo "entrypoint: $file: empty; expected the value of $name" >&2; exit 2; }
    export "$name=$value"
done
exec "$@"
