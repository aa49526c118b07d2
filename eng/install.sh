# shellcheck shell=bash
# Sourced by test.sh and demo.sh: finds out what the machine lacks and has it installed. A requirement is called by the
# Debian package that brings it, but is met by whatever does the same: on another system everything can come from elsewhere.
# Exit code 2: something is missing and cannot be installed here.

sdk_is_there() {
  # asked in the repository, so that global.json has its say about the version
  command -v dotnet >/dev/null && dotnet --version >/dev/null 2>&1
}

is_there() {
  case $1 in
    curl | npm | python3 | prosody) command -v "$1" ;;
    ejabberd) command -v ejabberdctl && command -v erlc ;;
    erlang-tools) erl -noshell -eval 'halt(case code:which(xref) of non_existing -> 1; _ -> 0 end).' ;;
    nodejs) command -v node ;;
    libfaketime) ls /usr/lib/*/faketime/libfaketimeMT.so.1 ;;
    lua5.4) luac_command ;;
    lua-check) command -v luacheck ;;
    postgresql) ls /usr/lib/postgresql/*/bin/initdb ;;
    procps) type -P kill ;;
    prosody-modules) ls -d /usr/lib/prosody/modules/mod_cloud_notify ;;
    python3-slixmpp) /usr/bin/python3 -c 'import slixmpp' ;;
    *) echo "eng/install.sh does not know how to look for $1" >&2; exit 1 ;;
  esac >/dev/null 2>&1
}

luac_command() {
  command -v luac5.4 || command -v luac
}

# need ASSUME_YES PACKAGE...: returns when all are there.
need() {
  local assume_yes=$1 package missing=()
  shift
  if ! sdk_is_there; then
    echo "Missing: the .NET SDK that global.json asks for ($(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' global.json) or a later 10.0)." >&2
    echo "Get it from https://dotnet.microsoft.com/download/dotnet/10.0 and put 'dotnet' on the PATH." >&2
    exit 2
  fi
  for package in "$@"; do
    is_there "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local install=(bash eng/apt-install.sh "${missing[@]}") why=""
  if ! command -v apt-get >/dev/null; then
    why="this is not Debian (there is no apt-get)"
  elif [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      why="you are not root and there is no sudo"
    elif [ -t 0 ]; then
      install=(sudo "${install[@]}")
    elif sudo -n true 2>/dev/null; then
      install=(sudo -n "${install[@]}")
    else
      why="you are not root and sudo wants a password"
    fi
  fi
  if [ -n "$why" ]; then
    echo "Missing: ${missing[*]}. They cannot be installed from here: $why." >&2
    echo "Install them (the names are Debian's packages) and run this again." >&2
    exit 2
  fi

  echo "Missing: ${missing[*]} (Debian packages)."
  if [ "$assume_yes" = no ] && [ -t 0 ]; then
    local answer=""
    read -r -p "Install them now? No service is left started or enabled. [Y/n] " answer || true
    case $answer in
      "" | [yY] | [yY][eE][sS]) ;;
      *) echo "Nothing was installed." >&2; exit 2 ;;
    esac
  fi
  "${install[@]}" || { echo "The packages could not be installed: ${missing[*]}." >&2; exit 2; }
  for package in "${missing[@]}"; do
    is_there "$package" || { echo "$package was installed, but is still not found." >&2; exit 2; }
  done
}
