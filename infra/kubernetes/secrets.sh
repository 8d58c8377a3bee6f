#!/bin/sh
# Prints the Secrets of a cluster from the files that infra/secrets.sh made:
#   infra/kubernetes/secrets.sh FOLDER | kubectl apply -f -
# In production let a secret store do this (examples/external-secrets.yaml).
set -eu

cd "${1:?folder that infra/secrets.sh has filled}"

secret() { # NAME KEY=FILE…
    name=$1
    shift
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: gkd}\ndata:\n' "$name"
    for pair in "$@"; do
        printf '  %s: %s\n' "${pair%%=*}" "$(base64 < "${pair#*=}" | tr -d '\n')"
    done
}

secret prefect-auth auth=prefect-auth
secret prefect-read auth=prefect-read
for name in admin prefect mlflow; do secret "database-$name" password="database-$name"; done
secret mlflow-admin password=mlflow-admin session=mlflow-session
for name in worker metrics; do secret "mlflow-$name" username="mlflow-$name-name" password="mlflow-$name"; done
for role in bootstrap tracking worker trainer; do secret "store-$role" credentials="store-$role"; done
secret store-identities identities.json=store-identities
