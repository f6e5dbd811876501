#!/usr/bin/env bash
# Seconds that a program takes to compile which includes one layer, or the whole library: processor
# time, which other programs hardly change, the best of three.
#
#   bench/compile_time.sh
#   bench/compile_time.sh --limit-one-layer 15 --limit-umbrella 15   exit code 1 where it takes longer
#
# --eigen DIR   the folder that holds Eigen/Core (that of the system)
# CXX           the compiler (g++)
# CXXFLAGS      its flags (-O2)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CCACHE_DISABLE=1 LC_ALL=C
CXX="${CXX:-g++}"
read -ra flags <<<"${CXXFLAGS:--O2}"
eigen=/usr/include/eigen3 limit_one_layer="" limit_umbrella=""

while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --limit-one-layer | --limit-umbrella | --eigen)
      if [ $# -lt 2 ]; then
        echo "error: $1 needs a value" >&2
        exit 2
      fi
      name="${1#--}"
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    *)
      echo "error: unknown option $1 (see --help)" >&2
      exit 2
      ;;
  esac
done

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# compile HEADER prints the least processor time of three compilations of program.cpp with it.
compile() {
  local TIMEFORMAT='%U %S'
  for _ in 1 2 3; do
    { time "$CXX" -std=c++20 "${flags[@]}" -I"$root/include" -isystem "$eigen" \
      "-DTTT_HEADER=<$1>" -c "$root/bench/compile_time/program.cpp" \
      -o "$work/out.o" 2>"$work/errors"; } 2>&1 || {
      cat "$work/errors" >&2
      return 1
    }
  done | awk '{ s = $1 + $2; if (NR == 1 || s < least) least = s } END { printf "%.2f", least }'
}

result=0
# report HEADER LIMIT
report() {
  local seconds
  seconds="$(compile "$1")"
  if [ -n "$2" ] && awk "BEGIN { exit !($seconds > $2) }"; then
    printf '%-28s %6.2f s, over the limit of %s s\n' "$1" "$seconds" "$2"
    result=1
  else
    printf '%-28s %6.2f s\n' "$1" "$seconds"
  fi
}

"$CXX" --version | sed -n 1p
echo "$CXX -std=c++20 ${flags[*]}"
report ttt/layers/ttt_linear.hpp "$limit_one_layer"
report ttt/ttt.hpp "$limit_umbrella"
report ttt/precompiled.hpp ""
exit $result
