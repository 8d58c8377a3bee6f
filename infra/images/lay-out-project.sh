#!/bin/sh
# Lays the project's files, as the image has them, into the folder that flow runs work in. What runs have left there
# (artifacts, DVC's cache, data) stays; code of an older image goes.
set -eu

source=${1:-/opt/project}
target=${2:-/srv/gkd}
mkdir -p "$target/.dvc"
rm -rf "$target/flows"
cp -R "$source/." "$target/"
