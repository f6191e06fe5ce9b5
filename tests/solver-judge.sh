#!/bin/bash
# Judge the package solver by apt, on real metadata of bookworm and trixie: tests/solver/judge, which see. TAP on stdout.
#
#   tests/solver-judge.sh [--suite bookworm|trixie] [--base BASE] [REQUEST…]      default: all lines of tests/solver/requests
#   tests/solver-judge.sh --some                                                  a few of them, for a quick look
#
# Give JUDGE_DIR to keep what was fetched and to use it again. Nothing is installed anywhere.
cd "$(dirname "$0")/.." || exit
# shellcheck source=fixtures/lib.bash
. tests/fixtures/lib.bash
need apt-get gpg gpgv dose-debcheck python3
find_debian_mirror
exec tests/solver/judge ${JUDGE_DIR:+--dir "$JUDGE_DIR"} "$@"
