#!/usr/bin/env bash
# Builds and runs the benchmarks of the layers; installs what is missing (apt-get).
# Leaves build/native/bench/bench.csv and prints it as a table.
#
#   bench/run.sh           sizes around one usual case (a few minutes)
#   bench/run.sh --quick   that case alone (under a minute)
#   bench/run.sh --full    every combination of sizes
#
# Other options go to the benchmark program:
#
#   bench/run.sh --benchmark_filter=ttt-mlp --benchmark_repetitions=9
#
# OMP_NUM_THREADS        threads beside 1 (all cores)
# "Library was built as DEBUG" is what Debian's and Ubuntu's Google Benchmark says of itself; the
# code that is measured is built with -O3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/common.sh

check_system
need_build_tools "$CXX"
need_packages libeigen3-dev libgtest-dev libbenchmark-dev nlohmann-json3-dev libcli11-dev \
  librapidcheck-dev python3=python3
native_preset
cmake --build --preset native --target layers_bench >&2

out=build/native/bench
rm -f "$out/bench.json"
"$out/layers_bench" --benchmark_out="$out/bench.json" --benchmark_out_format=json "$@"
[ -s "$out/bench.json" ] || exit 0 # nothing was measured: --help, --benchmark_list_tests
python3 bench/summarize.py "$out/bench.json" "$out/bench.csv"
