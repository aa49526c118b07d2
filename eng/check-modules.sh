#!/usr/bin/env bash
# Checks the server modules without running them: luacheck for Prosody's; for ejabberd's the compiler with every warning an
# error, and xref for calls to functions that this machine's ejabberd does not have.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

luacheck --no-color src/modules/prosody

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shopt -s nullglob
found=(/usr/lib/*/ejabberd-[0-9]* /usr/lib/ejabberd)
ejabberd=${found[0]:?ejabberd is not where Debian puts it}
libraries=$(erl -noshell -eval 'io:put_chars(code:lib_dir()), halt().')
includes=(-I "$ejabberd/include")
for library in "$libraries"/p1_xm*; do includes+=(-I "$library/include"); done
erlc -Wall -Werror +debug_info +warn_unused_vars +warn_export_vars +warn_shadow_vars +warn_obsolete_guard \
  "${includes[@]}" -pa "$ejabberd/ebin" -o "$work" src/modules/ejabberd/mod_push_relay.erl
ERL_CRASH_DUMP_BYTES=0 ERL_LIBS=$(dirname "$ejabberd") erl -noshell -eval '
  {ok, _} = xref:start(check),
  ok = xref:set_default(check, [{verbose, false}, {warnings, false}]),
  ok = xref:set_library_path(check, code:get_path() ++ ["'"$ejabberd"'/ebin"]),
  {ok, _} = xref:add_module(check, "'"$work"'/mod_push_relay.beam"),
  {ok, Unknown} = xref:analyze(check, undefined_function_calls),
  [io:format("~p calls ~p, which does not exist~n", [From, To]) || {From, To} <- Unknown],
  {ok, Unused} = xref:analyze(check, locals_not_used),
  [io:format("~p is never called~n", [Function]) || Function <- Unused],
  halt(min(1, length(Unknown) + length(Unused))).'
