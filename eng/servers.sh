#!/usr/bin/env bash
# Newer servers than this machine's own Debian has, for tests: Prosody, ejabberd and PostgreSQL of Debian's next release
# (trixie) or of its unstable suite (sid), in a folder that nothing else of the machine knows.
#
#   eng/servers.sh make SUITE                      makes the folder unless it is there; prints its path
#   eng/servers.sh run SUITE COMMAND [ARG...]      runs a command in it
#   eng/servers.sh driver SUITE [ARG...]           runs src/modules/prosody/test/run.py in it with these arguments
#   eng/servers.sh versions SUITE                  prints what is in it
#   eng/servers.sh remove [SUITE]                  removes it, or all
#
# apt gets a state folder of its own and the packages are unpacked, not installed: no script of a package runs, no service
# starts, nothing is registered on this machine. A command sees the folder as its root, with /dev, /proc, /sys, /tmp, this
# checkout and the .NET SDK of the machine at their usual paths; the mounts belong to the command and end with it.
# The folders are kept in $PUSHRELAY_SERVERS, by default ~/.cache/pushrelay/servers, and made anew when the list of
# packages below changes or they are older than the suite's number of days.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

packages=(
  prosody prosody-modules lua5.4 lua-check ejabberd erlang-tools postgresql python3 python3-slixmpp
  base-files bash coreutils dash debianutils findutils grep mawk procps sed util-linux libc-bin tzdata)
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${PUSHRELAY_SERVERS:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pushrelay/servers}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

die() {
  echo "eng/servers.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '5,9s/^#   //p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# The suite, and after how many days a folder of it is made anew.
choose() {
  case ${1:-} in
    trixie) days=30 ;;
    sid) days=7 ;;
    *) usage ;;
  esac
  suite=$1 root=$cache/$1
}

need() {
  local tool
  [ "$(id -u)" = 0 ] || die "it must run as root: it mounts folders and changes the root of a command"
  for tool in apt-get dpkg-deb tar flock unshare chroot mount; do
    command -v "$tool" >/dev/null || die "it needs $tool, which is not here: it works on Debian and what is made from it"
  done
  unshare --mount true 2>/dev/null || die "this machine does not let root make mounts (a container without CAP_SYS_ADMIN?)"
}

key() {
  echo "$suite $(dpkg --print-architecture) ${packages[*]}"
}

has_key() {
  [ "$(cat "$root/.key" 2>/dev/null)" = "$(key)" ]
}

is_old() {
  [ -n "$(find "$root/.key" -mtime "+$days")" ]
}

# Debian's mirror as this machine names it.
mirror() {
  local found
  found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null \
    | grep -E '^(URIs:|deb )' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ') || true
  echo "${found:-http://deb.debian.org/debian}"
}

# unpacked FOLDER: downloads the packages with all that they depend on, and unpacks them into the folder.
unpacked() {
  local apt=$1.apt package
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  # no package counts as installed, so apt names every one that is needed
  : >"$apt/status"
  echo "deb [signed-by=$keyring] $(mirror) $suite main" >"$apt/sources.list"
  local get=(apt-get -q
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State=$apt"
    -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3
    # a mirror that stands still is good enough for tests
    -o Acquire::Check-Valid-Until=false -o Debug::NoLocking=1)
  "${get[@]}" -o APT::Update::Error-Mode=any update >"$apt/log" 2>&1 || return 1
  "${get[@]}" -y --download-only install "${packages[@]}" >"$apt/log" 2>&1 || return 1
  for package in "$apt"/cache/archives/*.deb; do
    # --keep-directory-symlink: /bin and /lib are links
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$1" --keep-directory-symlink \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' || return 1
  done
  printf '%s\n' 'root:x:0:0::/root:/bin/bash' 'postgres:x:105:105::/tmp:/bin/bash' 'nobody:x:65534:65534::/:/bin/false' >"$1/etc/passwd"
  printf '%s\n' 'root:x:0:' 'postgres:x:105:' 'nogroup:x:65534:' >"$1/etc/group"
  echo '127.0.0.1 localhost' >"$1/etc/hosts"
  for package in "$apt"/cache/archives/{prosody,ejabberd,erlang-base,postgresql-[0-9]*,lua5.4,python3}_*.deb; do
    dpkg-deb --show --showformat '${Package} ${Version}\n' "$package"
  done >"$1/.versions"
  key >"$1/.key"
}

# Makes the folder beside the old one and puts it in its place when it is whole.
make_root() {
  local new
  [ -e "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
  new=$(mktemp -d "$cache/new.XXXXXX")
  # shellcheck disable=SC2064  # the name of now
  trap "rm -rf '$new' '$new.apt'" EXIT
  chmod 755 "$new"
  echo "making the servers of $suite in $root (150 MB to download)" >&2
  if ! unpacked "$new"; then
    tail -n 3 "$new.apt/log" >&2 || true
    return 1
  fi
  rm -rf "$root" "$new.apt"
  mv "$new" "$root"
  trap - EXIT
}

# Leaves the folder usable, and a lock that keeps others from making it anew as long as this process lives.
ready() {
  need
  mkdir -p "$cache"
  exec 9>"$cache/$suite.lock"
  if ! has_key; then
    flock -x 9
    has_key || make_root || die "the packages of $suite could not be fetched: is the network there? (mirror: $(mirror))"
  elif is_old && flock -xn 9; then
    make_root || { echo "eng/servers.sh: $suite is older than $days days and could not be made anew" >&2; touch "$root/.key"; }
  fi
  flock -s 9
}

# run_in COMMAND...: replaces this shell, so that signals reach the command.
run_in() {
  local dotnet
  dotnet=$(command -v dotnet || true)
  dotnet=${dotnet:+$(dirname "$(readlink -f "$dotnet")")}
  # shellcheck disable=SC2016  # expanded by the inner shell
  exec unshare --mount --propagation private bash -c '
    set -e
    root=$1 checkout=$2 dotnet=$3
    shift 3
    for folder in /dev /proc /sys /tmp; do mount --rbind "$folder" "$root$folder"; done
    for folder in "$checkout" $dotnet; do
      mkdir -p "$root$folder"
      mount --bind "$folder" "$root$folder"
    done
    exec chroot "$root" /usr/bin/env "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin${dotnet:+:$dotnet}" \
      HOME=/root LC_ALL=C.UTF-8 bash -c "cd \"\$0\" && exec \"\$@\"" "$checkout" "$@"
  ' servers "$root" "$checkout" "$dotnet" "$@"
}

[ $# -gt 0 ] || usage
command=$1
shift
case $command in
  make)
    choose "$@"
    ready
    echo "$root"
    ;;
  run)
    choose "$@"
    shift
    [ $# -gt 0 ] || usage
    ready
    run_in "$@"
    ;;
  driver)
    choose "$@"
    shift
    ready
    run_in /usr/bin/python3 "$checkout/src/modules/prosody/test/run.py" "$@"
    ;;
  versions)
    choose "$@"
    ready
    cat "$root/.versions"
    ;;
  remove)
    need
    [ -d "$cache" ] || exit 0
    [ $# -gt 0 ] || set -- trixie sid
    for name; do
      choose "$name"
      exec 9>"$cache/$suite.lock"
      flock -xn 9 || die "a command still runs in $root"
      rm -rf "$root"
    done
    ;;
  *) usage ;;
esac
