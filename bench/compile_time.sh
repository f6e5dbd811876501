#!/usr/bin/env bash
# How long programs take to compile: one layer, from its own header, from ttt.hpp and precompiled; and
# the training of an inner model of one's own. Seconds of processor time, which other programs hardly
# change, the best of three rounds.
#
#   bench/compile_time.sh
#   bench/compile_time.sh --limit-one-layer 10 --limit-umbrella 10 --limit-own-stack 16
#                         exit code 1 where it takes longer
#
# --eigen DIR   the folder that holds Eigen/Core (that of the system)
# --rounds N    how often each program is compiled (3)
# CXX           the compiler (g++)
# CXXFLAGS      its flags (-O2)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CCACHE_DISABLE=1 LC_ALL=C
CXX="${CXX:-g++}"
read -ra flags <<<"${CXXFLAGS:--O2}"
eigen=/usr/include/eigen3 rounds=3 limit_one_layer="" limit_umbrella="" limit_own_stack=""

while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --limit-one-layer | --limit-umbrella | --limit-own-stack | --eigen | --rounds)
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

if ! [[ "$rounds" =~ ^[1-9][0-9]*$ ]]; then
  echo "error: --rounds is $rounds, expected a positive number" >&2
  exit 2
fi
if [ ! -f "$eigen/Eigen/Core" ]; then
  echo "error: --eigen is $eigen, which holds no Eigen/Core" >&2
  exit 2
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# compile PROGRAM [HEADER] prints the least processor time of all rounds.
compile() {
  local TIMEFORMAT='%U %S' round
  for ((round = 0; round < rounds; ++round)); do
    { time "$CXX" -std=c++20 "${flags[@]}" -I"$root/include" -isystem "$eigen" \
      ${2:+"-DTTT_HEADER=<$2>"} -c "$root/bench/compile_time/$1.cpp" \
      -o "$work/out.o" 2>"$work/errors"; } 2>&1 || {
      cat "$work/errors" >&2
      return 1
    }
  done | awk '{ s = $1 + $2; if (NR == 1 || s < least) least = s } END { printf "%.2f", least }'
}

result=0
# report NAME LIMIT PROGRAM [HEADER]
report() {
  local name="$1" limit="$2" seconds
  seconds="$(compile "${@:3}")"
  if [ -n "$limit" ] && awk "BEGIN { exit !($seconds > $limit) }"; then
    printf '%-28s %6.2f s, over the limit of %s s\n' "$name" "$seconds" "$limit"
    result=1
  else
    printf '%-28s %6.2f s\n' "$name" "$seconds"
  fi
}

"$CXX" --version | sed -n 1p
echo "$CXX -std=c++20 ${flags[*]}"
report "one layer" "$limit_one_layer" one_layer ttt/layers/ttt_linear.hpp
report "one layer, all headers" "$limit_umbrella" one_layer ttt/ttt.hpp
report "one layer, precompiled" "" one_layer ttt/precompiled.hpp
report "own stack, with training" "$limit_own_stack" own_stack
exit $result
