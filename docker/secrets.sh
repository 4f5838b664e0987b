#!/bin/sh
# Make the passwords of docker-compose.yml in docker/secrets. Refuses where there are some: PostgreSQL and Grafana
# take theirs once, when their volumes are made.
#
# The folder is closed to others on this machine; the files are not, since each container reads its own as a user of
# its own.
set -eu
folder="$(dirname "$0")/secrets"
if [ -e "$folder/postgres_password" ]; then
    echo "There are passwords in $folder already. Remove that folder only with the volumes that they open." >&2
    exit 1
fi
mkdir -p "$folder"
chmod 0700 "$folder"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
password="$(random)"
printf '%s' "$password" > "$folder/postgres_password"
printf 'postgresql+psycopg://jigsight:%s@postgres:5432/jigsight' "$password" > "$folder/jigsight_database_url"
random > "$folder/grafana_password"
: > "$folder/prometheus_key"
chmod 0444 "$folder"/*
chmod 0644 "$folder/prometheus_key"
echo "Made $folder/. Next: a key for an administrator, and one for Prometheus (docs/deployment.md)."
