#!/usr/bin/env bash
# apt-install.sh PACKAGE...: installs Debian packages, as root, and leaves no service of theirs started or enabled and no
# PostgreSQL cluster behind. What it lays down for that is taken away again, also when it is interrupted.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
work=$(mktemp -d)
own_policy=no

undo() {
  [ "$own_policy" = no ] || rm -f "$policy"
  [ ! -e "$work/createcluster.conf" ] || cp -p "$work/createcluster.conf" "$cluster"
  rm -rf "$work"
}
trap undo EXIT
trap 'exit 130' INT TERM HUP

get() {
  apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -q "$@"
}

install() {
  get install -y --no-install-recommends "$@"
}

# What starts with the machine: systemd's links to units, and System V scripts.
enabled() {
  { find /etc/systemd/system -path '*.wants/*' -type l
    find /etc/rc[2-5].d -name 'S[0-9][0-9]*'; } 2>/dev/null | sort || true
}

# invoke-rc.d asks this before it starts anything, and takes 101 for a no
if [ ! -e "$policy" ]; then
  own_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
enabled >"$work/before"

get update
if [[ " $* " == *" postgresql "* ]]; then
  # lays down the file that says whether the server's package makes a cluster
  install postgresql-common
  cp -p "$cluster" "$work/createcluster.conf"
  printf "\ncreate_main_cluster = false\n" >>"$cluster"
fi
install "$@"

enabled | comm -13 "$work/before" - | while read -r link; do
  case $link in
    # what systemctl disable does, which may be missing; an upgrade takes a removed link for the operator's will
    /etc/systemd/*) rm -f "$link" ;;
    *) update-rc.d "$(basename "$link" | sed 's/^S[0-9][0-9]//')" disable </dev/null ;;
  esac
done
# whoever reads the output of a run should see that nothing was left behind
enabled | comm -13 "$work/before" - | sed 's/^/still enabled: /'
