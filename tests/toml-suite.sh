#!/bin/sh
# Run the public toml-test suite (the cases listed for TOML 1.0.0) against tests/toml-decode of a build folder.
# usage: tests/toml-suite.sh [BUILD]     BUILD defaults to build/debug; the data is $IMGBUILD_TEST_DATA/toml.
set -eu
build=${1:-build/debug}
data=${IMGBUILD_TEST_DATA:-../shared/data}/toml/toml-test.tar.zst
[ -r "$data" ] || {
	echo "toml-suite: $data is missing: run \`make testdata\` or set IMGBUILD_TEST_DATA" >&2
	exit 1
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
tar -C "$dir" -xf "$data"
python3 tests/toml-suite.py "$build/tests/toml-decode" "$dir/tests"
