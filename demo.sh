#!/usr/bin/env bash
# demo.sh [--once] [--yes]: shows PushRelay at work beside a real Prosody; see README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. eng/install.sh

assume_yes=no once=()
for argument in "$@"; do
  case $argument in
    --once) once=(--once) ;;
    --yes) assume_yes=yes ;;
    *)
      echo "usage: ./demo.sh [--once] [--yes]"
      echo "  --once  ends after the story: 0 if every step of it happened"
      echo "  --yes   installs what is missing without asking"
      [ "$argument" = --help ] && exit 0 || exit 2
      ;;
  esac
done

need "$assume_yes" prosody python3 curl

program=artifacts/pushrelay
# built again only when a file that it is built from is another
sources=$(find src/PushRelay* ./*.props global.json appsettings.json -not -path '*/bin/*' -not -path '*/obj/*' -type f \
  -printf '%p %s %T@\n' | sort | sha256sum)
if [ "$(cat "$program/.built-from" 2>/dev/null)" != "$sources" ]; then
  echo "Building PushRelay (the first time takes a minute or two) ..."
  export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_CLI_USE_MSBUILD_SERVER=0 MSBUILDDISABLENODEREUSE=1
  rm -rf "$program"
  dotnet publish src/PushRelay -c Release -o "$program" -v minimal --nologo
  echo "$sources" >"$program/.built-from"
fi
exec python3 demo/story.py --program "$program/pushrelay.dll" "${once[@]}"
