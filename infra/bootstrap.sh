#!/bin/sh
# Sets a cluster up from one place, in the order of need: databases and buckets, then (when the servers are up) MLflow's users
# for the worker and for metrics, and Prefect's work pool, automations and deployments. Again, it changes nothing. Run it in the project's
# folder, with the variables of `gkd infra --help` and PREFECT_API_URL. compose.yaml and the Jobs in kubernetes/ run the same
# two halves as two steps.
set -eu

gkd infra bootstrap

health=${PREFECT_API_URL:?address of the Prefect API, such as http://127.0.0.1:4200/api}/health
tries=0
until python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$health" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo "bootstrap.sh: $health does not answer; start the servers now that their databases are there" >&2; exit 1; }
    sleep 2
done
if [ -n "${MLFLOW_AUTH_ADMIN_PASSWORD:-}" ]; then
    gkd infra tracking-user
fi
# By user: another's lock of one common name would be refused, as it may have been laid there.
python -m flows.local_platform.set_up "${TMPDIR:-/tmp}/gkd-set-up-$(id -u).lock"
