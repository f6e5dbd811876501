#!/usr/bin/env bash
# Builds and runs the benchmarks of the layers; installs what is missing (apt-get).
# Leaves build/native/bench/bench.csv and prints it as a table. Options go to the benchmark program:
#
#   bench/run.sh --benchmark_filter=ttt --benchmark_min_time=0.2
#
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
"$out/layers_bench" --benchmark_out="$out/bench.json" --benchmark_out_format=json "$@"
python3 bench/summarize.py "$out/bench.json" "$out/bench.csv"
