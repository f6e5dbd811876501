#!/usr/bin/env bash
# Builds and runs the tests; installs what is missing (apt-get).
#
#   tests/run.sh          one compiler, one Eigen: every test that is not slow (15 minutes on 2 cores)
#   tests/run.sh --full   also slow tests, packaging, other processors' instructions, clang with
#                         Eigen 5.0.1, sanitizers (40 minutes)
#
# The last line is `N passed, N failed[, N skipped]`; the exit code is 0 where none failed.
# TTT_REFERENCE_DIR  a folder of reference values; with it, a skipped reference test is a failure
# TTT_CMAKE_OPTIONS  further options for cmake, separated by spaces
# CXX                the compiler of the first round (g++)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/common.sh

full=no
for option; do
  case "$option" in
    --full) full=yes ;;
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *)
      echo "error: unknown option $option (see --help)" >&2
      exit 2
      ;;
  esac
done

passed=0 failed=0 skipped=0
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
read -ra further_options <<<"${TTT_CMAKE_OPTIONS:-}"
export OMP_WAIT_POLICY=passive # tests run side by side: a thread that waits must not spin
ulimit -c 0

fail() {
  say "FAILED: $*"
  failed=$((failed + 1))
}

# build PRESET TARGET CMAKE_OPTION... configures and builds.
build() {
  local preset="$1" target="$2"
  shift 2
  cmake --preset "$preset" "$@" "${further_options[@]}" >"$log" 2>&1 || {
    cat "$log" >&2
    fail "cmake --preset $preset"
    return 1
  }
  cmake --build --preset "$preset" --target "$target" || {
    fail "cmake --build --preset $preset"
    return 1
  }
}

# run_tests PRESET CTEST_OPTION... runs what `build` built, and counts.
run_tests() {
  local preset="$1" result=0 unreferenced
  shift
  # Which tests exist may depend on TTT_REFERENCE_DIR: list them anew.
  find "build/$preset/tests" -name '*_tests.cmake' -delete
  ctest --preset "$preset" -j "$(nproc)" "$@" 2>&1 | tee "$log" || result=$?
  local done_lines='^ *[0-9]+/[0-9]+ +Test +#[0-9]+: '
  local good bad none
  good="$(grep -cE "$done_lines.* Passed +[0-9]" "$log" || true)"
  none="$(grep -cE "$done_lines.*\*\*\*(Skipped|Not Run \(Disabled\))" "$log" || true)"
  bad=$(($(grep -cE "$done_lines" "$log" || true) - good - none))
  passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + none))
  [ "$result" -eq 0 ] || [ "$bad" -gt 0 ] || fail "ctest --preset $preset"
  if [ -n "${TTT_REFERENCE_DIR:-}" ]; then
    unreferenced="$(grep -cE "$done_lines.*Reference.*\*\*\*Skipped" "$log" || true)"
    [ "$unreferenced" -eq 0 ] ||
      fail "$unreferenced reference tests were skipped though TTT_REFERENCE_DIR is set"
  fi
}

# run_kernels FLAG TEST... builds these tests with the flag into one program, and runs it.
run_kernels() {
  local flag="$1" folder="build/kernels/${1#-}" root="$PWD" flags libraries good none
  shift
  read -ra flags <<<"-std=c++20 -O2 -fopenmp -DTTT_USE_OPENMP=1 $flag $(pkg-config --cflags eigen3 gtest_main)"
  read -ra libraries <<<"$(pkg-config --libs gtest_main)"
  [ "$flag" != -DEIGEN_USE_BLAS ] || libraries+=(-lopenblas)
  rm -rf "$folder"
  mkdir -p "$folder"
  ( # each source makes an object of its own name here
    cd "$folder" &&
      printf "$root/tests/%s_test.cpp\n" "$@" |
      xargs -d '\n' -n 1 -P "$(nproc)" \
        ${CMAKE_CXX_COMPILER_LAUNCHER:+"$CMAKE_CXX_COMPILER_LAUNCHER"} \
        "$CXX" "${flags[@]}" -I"$root/include" -I"$root/tests" -c &&
      "$CXX" -fopenmp ./*.o "${libraries[@]}" -o kernels
  ) || {
    fail "the kernels do not compile with $flag"
    return 0
  }
  OPENBLAS_NUM_THREADS=1 "$folder/kernels" --gtest_brief=1 2>&1 | tee "$log" ||
    fail "kernels compiled with $flag"
  good="$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log")"
  none="$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log")"
  passed=$((passed + ${good:-0})) skipped=$((skipped + ${none:-0}))
}

# has INSTRUCTIONS... whether this processor has them all.
has() {
  local instructions
  for instructions; do
    grep -qw "$instructions" /proc/cpuinfo || return 1
  done
}

round() { say "$1 ($(date +%H:%M:%S))"; }

check_system
need_build_tools "$CXX"
need_packages libeigen3-dev libgtest-dev nlohmann-json3-dev libcli11-dev librapidcheck-dev

if [ "$full" = no ]; then
  round "tests"
  build dev ttt_tests -DTTT_BUILD_BENCH=OFF && run_tests dev --label-exclude 'slow|package'
else
  need_packages libbenchmark-dev libopenblas-dev pkg-config=pkg-config python3-pip
  need_build_tools clang++
  need_packages libclang-rt-dev # the sanitizers' runtime

  round "everything, $CXX, Eigen of the system"
  build dev all -DCMAKE_CXX_FLAGS_DEBUG=-O1 && run_tests dev # no debug information: faster

  round "the library, clang, Eigen 5.0.1"
  if eigen="$(eigen5)"; then
    build clang ttt_library_tests -DTTT_BUILD_BENCH=OFF -DTTT_EIGEN_INCLUDE_DIR="$eigen" \
      -DCMAKE_CXX_FLAGS_DEBUG=-O1 -DTTT_PRECOMPILE_TESTS=ON &&
      run_tests clang --label-exclude 'slow|package' --exclude-regex '^examples'
  else
    fail "Eigen 5.0.1 could not be fetched"
  fi

  round "kernels for other processors, and with BLAS"
  packed=(nn/decode_weights nn/packed_matrix) # what the compiler's vector types are for
  kernels=(core/small_product core/product)
  run_kernels -DTTT_WITHOUT_VECTOR_TYPES "${packed[@]}"
  run_kernels -DEIGEN_USE_BLAS "${kernels[@]}"
  if has avx2 bmi2 fma; then
    run_kernels -march=x86-64-v3 "${packed[@]}" "${kernels[@]}"
  else
    say "skipped: this processor has no AVX2"
  fi
  if has avx512f avx512bw avx512cd avx512dq avx512vl; then
    run_kernels -march=x86-64-v4 "${packed[@]}" "${kernels[@]}"
  else
    say "skipped: this processor has no AVX-512"
  fi

  round "address and undefined-behaviour sanitizers, clang"
  # The library's own tests: sanitized programs on top of them cost minutes and find no more.
  # The preset does not check for null, misaligned and mistyped addresses, which takes as long to
  # compile as all the rest, nor pointer-overflow: Eigen's empty block of an empty matrix is null
  # plus something.
  build asan-ubsan ttt_tests -DTTT_BUILD_BENCH=OFF -DTTT_BUILD_EXAMPLES=OFF \
    -DTTT_PRECOMPILE_TESTS=ON &&
    run_tests asan-ubsan --label-exclude 'slow|package'
fi

summary="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
echo "$summary"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
