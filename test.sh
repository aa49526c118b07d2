#!/usr/bin/env bash
# test.sh [--yes] [--faults | --servers | --all]: installs what is missing (it asks first at a terminal, unless --yes), builds,
# and runs every fast check and test, also against real Prosody, ejabberd and PostgreSQL. Instead of these, --faults runs the slow
# fault tests (docs/faults.md), and --servers every case of the modules in the servers of Debian's next release and of its unstable
# suite (eng/servers.sh); --all runs everything. The last lines are the seconds of each suite and the count.
# Exit code 0: all passed; 1: not; 2: something is missing and cannot be installed here.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2
. eng/install.sh

assume_yes=no fast=yes faults=no servers=no
for argument in "$@"; do
  case $argument in
    --yes) assume_yes=yes ;;
    --faults) faults=yes fast=no ;;
    --servers) servers=yes fast=no ;;
    --all) faults=yes servers=yes fast=yes ;;
    *)
      echo "usage: ./test.sh [--yes] [--faults | --servers | --all]"
      echo "  --yes     installs what is missing without asking"
      echo "  --faults  runs the slow fault tests, and nothing else"
      echo "  --servers runs every case of the server modules in newer servers (eng/servers.sh), and nothing else"
      echo "  --all     runs every test there is"
      [ "$argument" = --help ] && exit 0 || exit 2
      ;;
  esac
done

need "$assume_yes" lua5.4 lua-check procps prosody prosody-modules ejabberd erlang-tools libfaketime python3-slixmpp nodejs npm postgresql
# what the installation took does not count
SECONDS=0

export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1
# no build process stays behind
export DOTNET_CLI_USE_MSBUILD_SERVER=0 MSBUILDDISABLENODEREUSE=1
export DOTNET_CLI_HOME="${DOTNET_CLI_HOME:-${HOME:-/tmp}}"

runner_minutes_max=30
work=$(mktemp -d)
seconds_max=1200
passed=0 failed=0 skipped=0 ran=0 unhappy=() suites=() suite="" suite_began=0

finish() {
  local status=$?
  # interrupted: timeout passes it on to the runner and all that it started
  [ ! -s "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null
  rm -rf "$work"
  heading ""
  printf '\nSeconds by suite:\n'
  printf '  %s\n' "${suites[@]}"
  if [ "$fast$faults$servers" = yesnono ] && [ "$SECONDS" -gt "$seconds_max" ]; then
    echo "Too slow: the run took $SECONDS s; it is to stay below $seconds_max s. Move slow tests behind a flag."
  fi
  if [ ${#unhappy[@]} -gt 0 ]; then
    printf '\nNot passed:\n'
    printf '  %s\n' "${unhappy[@]}"
  fi
  if [ "$ran" -eq 0 ] && [ "$failed" -eq 0 ]; then
    echo "No test ran."
    failed=1
  fi
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ] && [ "$status" -eq 0 ] && exit 0
  exit 1
}
trap finish EXIT
trap 'unhappy+=("interrupted"); failed=$((failed + 1)); exit 1' INT TERM HUP

# heading NAME: a suite begins, and the one before it ends; empty: it only ends.
heading() {
  [ -z "$suite" ] || suites+=("$(printf '%4d  %s' "$((SECONDS - suite_began))" "$suite")")
  suite=$1 suite_began=$SECONDS
  [ -z "$1" ] || printf '\n== %s (%d s)\n' "$1" "$SECONDS"
}

fail() {
  failed=$((failed + 1))
  unhappy+=("$1")
}

# check NAME COMMAND...: one that passes or fails as a whole.
check() {
  local name=$1
  shift
  heading "$name"
  if "$@" </dev/null 2>&1; then
    passed=$((passed + 1))
  else
    fail "$name"
    return 1
  fi
}

# count NAME PASSED FAILED SKIPPED EXIT_CODE: takes in what a runner reports; nothing reported, nothing run, or a bad end
# without a failed test is a failure of its own.
count() {
  local name=$1 exit_code=$5
  if [ -z "$2" ] || [ -z "$3" ] || [ -z "$4" ]; then
    fail "$name: ended without a report (exit code $exit_code)"
    return
  fi
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4)) ran=$((ran + $2 + $3))
  [ "$3" -eq 0 ] || unhappy+=("$name: $3 failed")
  if [ "$(($2 + $3))" -eq 0 ]; then
    fail "$name: ran no test"
  elif [ "$3" -eq 0 ] && [ "$exit_code" -ne 0 ]; then
    fail "$name: ended with exit code $exit_code"
  fi
}

attribute() {
  sed -n "s/.* $1=\"\([0-9]*\)\".*/\1/p" <<<"$2"
}

# bounded FILTER COMMAND...: runs it for so long at most, what it prints goes through the awk program.
bounded() {
  local filter=$1
  shift
  # into a file, not a pipe: whoever reads slowly must not hold up tests that measure time
  (
    timeout -k 30 "${runner_minutes_max}m" "$@" </dev/null >"$work/output" 2>&1 &
    echo $! >"$work/pid"
    wait $!
    echo $? >"$work/status"
  )
  awk -v last="$work/last" "$filter" "$work/output"
  rm "$work/pid" "$work/output"
  return "$(cat "$work/status")"
}

# tests PROJECT [OPTION...]: xUnit's runner in the project, counted from the file that it writes.
tests() {
  local name=$1 report="$work/$1.xml" status summary="" errors line
  shift
  heading "$name"
  bounded '/ \[STARTING\]$/ { next } { print; fflush() }' \
    dotnet run --project "tests/$name" --no-build -- -noLogo -noColor -reporter verbose -result-xml "$report" "$@"
  status=$?
  [ ! -s "$report" ] || summary=$(grep -o '<assembly [^>]*' "$report")
  errors=$(attribute errors "$summary")
  # said again at the end, with the reason: a long log is read from its end
  while read -r line; do
    unhappy+=("$name: $line")
  done < <([ ! -s "$report" ] || python3 eng/failed-tests.py "$report")
  count "$name" "$(attribute passed "$summary")" "$(($(attribute failed "$summary") + ${errors:-0}))" \
    "$(attribute skipped "$summary")" "$status"
}

# script NAME COMMAND...: one that ends with a line "N passed, N failed".
script() {
  local name=$1 status line
  shift
  heading "$name"
  bounded '/^[0-9]+ passed, [0-9]+ failed$/ { print > last; next } { print substr($0, 1, 400); fflush() }' "$@"
  status=$?
  line=$(cat "$work/last" 2>/dev/null)
  rm -f "$work/last"
  count "$name" "${line%% *}" "$(sed -n 's/.*, \([0-9]*\) failed/\1/p' <<<"$line")" "${line:+0}" "$status"
}

no_pending_migration() {
  dotnet ef migrations has-pending-model-changes --project src/PushRelay --context "$1" --no-build
}

build_succeeds() {
  check "Packages are the locked ones" dotnet restore --locked-mode PushRelay.sln \
    && check "Build, warnings are errors" dotnet build PushRelay.sln --nologo -v minimal
}

fast_suites() {
  if check "Tools are restored" dotnet tool restore; then
    check "Formatting" dotnet csharpier check .
    check "Migrations of SQLite match the model" no_pending_migration SqliteRelayDb
    check "Migrations of PostgreSQL match the model" no_pending_migration PostgreSqlRelayDb
  fi
  check "No hard words that were not there before" eng/check-words.sh
  check "The Prosody module compiles" "$(luac_command)" -p src/modules/prosody/mod_push_relay.lua
  check "The server modules: luacheck, erlc, xref" eng/check-modules.sh
  check "Web Push in JavaScript is installed" npm ci --ignore-scripts --no-audit --no-fund --prefix tests/PushRelay.Interop/WebPush
  tests PushRelay.Tests
  tests PushRelay.Interop -trait- pace=slow
  script "The module in Prosody" /usr/bin/python3 src/modules/prosody/test/run.py --server prosody
  script "The module in ejabberd" /usr/bin/python3 src/modules/prosody/test/run.py --server ejabberd
  script "The module in Prosody of Debian's next release" eng/servers.sh driver trixie --server prosody --fuzz 3 \
    vector harms_no_link bind_2 an_account a_stranger
  script "The module in ejabberd of Debian's next release" eng/servers.sh driver trixie --server ejabberd --fuzz 3 \
    vector harms_no_link a_bound_session snapshot an_account a_stranger
}

newer_servers() {
  # other names than `suite`, which is what the summary calls the present check
  local release server
  for release in trixie sid; do
    for server in prosody ejabberd; do
      script "The module in $server of $release" eng/servers.sh driver "$release" --server "$server"
    done
  done
}

if [ "$fast" = yes ] || [ "$faults" = yes ]; then
  build_succeeds || exit 1
fi
[ "$fast" = no ] || fast_suites
[ "$faults" = no ] || tests PushRelay.Interop -trait pace=slow
[ "$servers" = no ] || newer_servers
