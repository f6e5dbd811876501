#!/usr/bin/env bash
# Builds and runs bench/realtime, which times each step of a layer; installs what is missing
# (apt-get).
#
#   bench/realtime.sh                    10^7 steps of each layer and width (some minutes)
#   bench/realtime.sh --rtneural PATH    beside RTNeural's LSTM and GRU; PATH is its source tree
#
# Other options go to the program:
#
#   bench/realtime.sh --steps 1000000 --width 16,64 --core 1
#   bench/realtime.sh --soak 100000000
#
# --steps N          steps that are timed, of each layer and width (10^7)
# --width LIST       widths, separated by commas (16,32,64,128)
# --layers LIST      of ttt-linear, ttt-linear-fixed, ttt-mlp, ttt-mlp-fixed, lstm, lstm-fixed, and
#                    with RTNeural rtneural-lstm, rtneural-gru (all)
# --core N           run on this core alone
# --csv FILE         write the table to FILE as well
# --soak N           instead: N steps of each layer through silence, noise, impulses and gain jumps;
#                    exit code 1 where it does not stay finite and flat
# --keep-denormals   compute with denormal numbers as the processor does by itself
set -euo pipefail
rtneural="" arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --rtneural)
      if [ $# -lt 2 ]; then
        echo "error: --rtneural needs the path of RTNeural's source tree" >&2
        exit 2
      fi
      rtneural="$(cd "$2" && pwd)"
      shift
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/common.sh

native_preset
cmake --preset native "-DTTT_RTNEURAL_INCLUDE_DIR=$rtneural" >&2
cmake --build --preset native --target realtime >&2
exec build/native/bench/realtime "${arguments[@]}"
