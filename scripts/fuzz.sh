#!/bin/sh
# Runs every fuzz target of the repository for the given time each.
#
#   scripts/fuzz.sh [10s]
set -eu
cd "$(dirname "$0")/.."
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
	for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | cut -c6-); do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${1:-10s}" "$dir"
	done
done
