#!/usr/bin/env bash
# make-secrets.sh: makes the secrets that docker-compose.yml names, in ./secrets; those that are there stay as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The containers' users read the files through their mounts; on this machine the folder keeps others out.
mkdir -p -m 0700 secrets
umask 0333

random() {
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

make() {
  if [ -e "secrets/$1" ]; then
    echo "kept secrets/$1"
  else
    printf '%s\n' "$2" >"secrets/$1"
    echo "made secrets/$1"
  fi
}

make postgres.password "$(random)"
make connection.string "Host=postgres;Database=pushrelay;Username=pushrelay;Password=$(cat secrets/postgres.password)"
make master.key "$(random)"
make component.secret "$(random)"
make operator.key "$(random)"
