#!/usr/bin/env bash
# check-words.sh [--update]: fails where a word of eng/words.txt is used more often in a file than eng/words-known.txt allows.
# Many readers have English as their second language. --update writes eng/words-known.txt again: only to make its numbers smaller.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C.UTF-8

words=$(sed -e 's/ *#.*//' -e '/^$/d' eng/words.txt | paste -sd '|')

# used: "FILE:word COUNT", sorted
used() {
  grep -rowiE --include='*.cs' --include='*.md' --include='*.lua' --include='*.erl' --include='*.sh' --include='*.py' \
    --exclude-dir=bin --exclude-dir=obj --exclude-dir=node_modules --exclude-dir=Migrations --exclude-dir=.git \
    -- "$words" README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md demo.sh test.sh demo docs src tests \
    | tr '[:upper:]' '[:lower:]' | sort | uniq -c | sed -E 's/^ *([0-9]+) (.*)$/\2 \1/'
}

if [ "${1:-}" = --update ]; then
  used >eng/words-known.txt
  exit
fi

used | awk '
  function key(line) { sub(/ [0-9]+$/, "", line); return line }
  NR == FNR { known[key($0)] = $NF; next }
  $NF > known[key($0)] + 0 { print key($0) " is used " $NF " times, " known[key($0)] + 0 " are known"; bad = 1 }
  END { if (bad) { print "Use a plainer word: eng/words.txt has one for each."; exit 1 } }
' eng/words-known.txt -
