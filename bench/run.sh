#!/usr/bin/env bash
# Builds and runs the benchmarks; installs what is missing (apt-get).
# Leaves build/native/bench/bench.csv and prints it as a table, and one of whole models.
#
#   bench/run.sh           sizes around one usual case, and whole models
#   bench/run.sh --quick   that case alone (two minutes)
#   bench/run.sh --full    every combination of sizes, and whole models
#
# Other options go to the benchmark of the layers, which takes those of Google Benchmark:
#
#   bench/run.sh --benchmark_filter=ttt-mlp --benchmark_repetitions=9
#
#   --benchmark_list_tests        the names, such as ttt-mlp/step/width:768/heads:12/...
#   --benchmark_filter=REGEX      names to run; -REGEX: to leave out
#   --benchmark_repetitions=N     measurements of each, of which the table has the median (3)
#   --benchmark_min_time=SECONDS  least time of one measurement (0.1)
#
# build/native/bench/layers_bench --help has the rest, once it is built.
#
# OMP_NUM_THREADS        threads beside 1 (all cores)
# "Library was built as DEBUG" is what Debian's and Ubuntu's Google Benchmark says of itself; the
# code that is measured is built with -O3.
set -euo pipefail
for option; do
  case "$option" in
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
  esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/common.sh

native_preset python3=python3
targets=(layers_bench)
[[ " $* " == *" --quick "* || " $* " == *" --benchmark_"* ]] || targets+=(models_bench)
cmake --build --preset native --target "${targets[@]}" >&2

out=build/native/bench
rm -f "$out/bench.json"
"$out/layers_bench" --benchmark_out="$out/bench.json" --benchmark_out_format=json "$@"
[ -s "$out/bench.json" ] || exit 0 # nothing was measured: --benchmark_list_tests
python3 bench/summarize.py "$out/bench.json" "$out/bench.csv"
if [ ${#targets[@]} -gt 1 ]; then
  "$out/models_bench" --benchmark_out="$out/models.json" --benchmark_out_format=json >&2
  python3 bench/summarize.py --models "$out/models.json"
  printf '\nlargest memory of a training step, without and with recomputing blocks\n'
  "$out/models_bench" --memory
fi
