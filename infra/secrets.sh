#!/bin/sh
# Makes every secret of a cluster, at random, as files in a folder: infra/secrets.sh FOLDER. What is there already stays, so
# it can be run again. compose.yaml mounts the files; infra/kubernetes/secrets.sh turns them into Secrets.
set -eu

folder=${1:?folder to fill, such as infra/compose/secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder" # nobody else gets in; the files themselves can be read by the containers' user
cd "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

put() { # NAME VALUE
    [ -e "$1" ] && return
    printf '%s\n' "$2" > ".$1.new"
    chmod 444 ".$1.new"
    mv ".$1.new" "$1"
    echo "made $folder/$1"
}

put prefect-auth "gkd:$(random)"
put prefect-read "metrics:$(random)"
for name in database-admin database-prefect database-mlflow mlflow-admin mlflow-session mlflow-worker mlflow-metrics ray-token; do
    put "$name" "$(random)"
done
put mlflow-worker-name gkd
put mlflow-metrics-name metrics

# An access key for each role of the bucket (infra/policies). SeaweedFS reads them all, each service its own.
for role in bootstrap tracking worker trainer curator backup; do
    put "store-$role" "[default]
aws_access_key_id = gkd-$role
aws_secret_access_key = $(random)"
done

key() { sed -n 's/^aws_secret_access_key = //p' "store-$1"; }

identity() { # ROLE ACTION,…
    actions=$(printf '%s' "$2" | sed 's/,/", "/g')
    printf '  {"name": "%s", "credentials": [{"accessKey": "gkd-%s", "secretKey": "%s"}], "actions": ["%s"]}' \
        "$1" "$1" "$(key "$1")" "$actions"
}

put store-identities "{\"identities\": [
$(identity bootstrap Admin),
$(identity tracking Read:gkd-mlflow,Write:gkd-mlflow,List:gkd-mlflow),
$(identity worker Read:gkd-data,List:gkd-data,Write:gkd-data/dvc/*,Write:gkd-data/scratch/*),
$(identity trainer Read:gkd-data/shards/*,Read:gkd-data/scratch/*,List:gkd-data,Write:gkd-data/scratch/*),
$(identity curator Read:gkd-data,List:gkd-data,Write:gkd-data/raw/*,Write:gkd-data/shards/*,Write:gkd-data/dvc/*),
$(identity backup Read:gkd-data,List:gkd-data,Read:gkd-mlflow,List:gkd-mlflow,Read:gkd-backup,List:gkd-backup,Write:gkd-backup)
]}"
