# What the run scripts share: the check of the system, missing packages, pinned downloads.
# Sourced from the top of the source tree.
# shellcheck shell=bash

cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ttt"
export CXX="${CXX:-g++}"

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# at_least VERSION WANTED
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check_system() {
  local ID="" VERSION_ID="" PRETTY_NAME="this system"
  # shellcheck source=/dev/null
  [ ! -r /etc/os-release ] || . /etc/os-release
  case "$ID" in
    debian) ! at_least "${VERSION_ID:-99}" 12 || return 0 ;;
    ubuntu) ! at_least "${VERSION_ID:-99}" 24.04 || return 0 ;;
  esac
  say "$PRETTY_NAME is untested: ttt is tested on Debian 12 and Ubuntu 24.04 or later"
}

have() { command -v "$1" >/dev/null 2>&1; }
is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need_packages PACKAGE... installs those that are missing. A name given as PACKAGE=COMMAND is
# there when the command is.
need_packages() {
  local wanted missing=()
  for wanted; do
    case "$wanted" in
      *=*) have "${wanted#*=}" || missing+=("${wanted%%=*}") ;;
      *) ! have dpkg-query || is_installed "$wanted" || missing+=("$wanted") ;;
    esac
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local install=(apt-get install -y --no-install-recommends "${missing[@]}") as_root=()
  local by_hand="please run: sudo apt-get update && sudo ${install[*]}"
  have apt-get || die "missing, and there is no apt-get here to install it: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    { have sudo && sudo -n true 2>/dev/null; } ||
      die "missing: ${missing[*]}; this user may not install packages; $by_hand"
    as_root=(sudo -n)
  fi
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  say "installing ${missing[*]} (${install[*]})"
  if ! "${as_root[@]}" "${install[@]}" >&2 </dev/null; then
    say "that failed; once more with new package lists (apt-get update)"
    { "${as_root[@]}" apt-get update >&2 </dev/null &&
      "${as_root[@]}" "${install[@]}" >&2 </dev/null; } ||
      die "the packages could not be installed; $by_hand"
  fi
}

# need_build_tools COMPILER: compiler, CMake and Ninja, recent enough.
need_build_tools() {
  local compiler="$1" version
  case "$compiler" in
    g++) need_packages g++=g++ ;;
    clang++) need_packages clang=clang++ libomp-dev ;;
  esac
  need_packages cmake=cmake ninja-build=ninja
  version="$("$compiler" -dumpfullversion -dumpversion)" || die "the compiler $compiler does not run"
  case "$("$compiler" --version | head -n 1)" in
    *clang*) at_least "$version" 14 || die "$compiler is clang $version; ttt needs clang 14 or later" ;;
    *) at_least "$version" 12 || die "$compiler has version $version; ttt needs g++ 12 or later" ;;
  esac
  version="$(cmake --version | sed -n '1s/.* //p')"
  at_least "$version" 3.25 || die "cmake has version $version; ttt needs 3.25 or later"
  export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"
  export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
  ! have ccache || export CMAKE_CXX_COMPILER_LAUNCHER="${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}"
}

# Prints the folder of Eigen 5.0.1's headers, and fetches them first where they are not cached.
# They come from a wheel, of which nothing is run; its headers serve every processor.
eigen5() {
  local folder="$cache/eigen-5.0.1" work
  if [ ! -f "$folder/Eigen/Core" ]; then
    python3 -m pip --version >/dev/null 2>&1 || return 1
    mkdir -p "$cache"
    work="$(mktemp -d "$cache/fetch.XXXXXX")"
    say "fetching the headers of Eigen 5.0.1 (PyPI, eigency 5.0.1.1) into $folder"
    if ! fetch_eigen5 "$work" >&2; then
      rm -rf "$work"
      return 1
    fi
    [ -f "$folder/Eigen/Core" ] || mv -T "$work/eigency/eigen" "$folder"
    rm -rf "$work"
  fi
  printf '%s\n' "$folder"
}

fetch_eigen5() {
  local sha=5a34a04a6039e067b7fe5ed4b876522fdbab81383b2f9286e94e45e15ae50676
  echo "eigency==5.0.1.1 --hash=sha256:$sha" >"$1/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --python-version 3.11 --implementation cp --abi cp311 --platform manylinux2014_x86_64 \
    --require-hashes -r "$1/requirements.txt" -d "$1" </dev/null &&
    python3 - "$1" <<'PYTHON'
import glob, sys, zipfile

with zipfile.ZipFile(glob.glob(sys.argv[1] + "/eigency-*.whl")[0]) as wheel:
    wheel.extractall(sys.argv[1], [n for n in wheel.namelist() if n.startswith("eigency/eigen/")])
PYTHON
}

# native_preset PACKAGE...: installs what build/native needs, and the packages named, and configures
# it. Eigen 5.0.1 makes products a third faster with g++ than 3.4.0; a folder that was configured
# before keeps its Eigen.
native_preset() {
  local eigen options=()
  check_system
  need_build_tools "$CXX"
  need_packages libeigen3-dev libgtest-dev libbenchmark-dev nlohmann-json3-dev libcli11-dev \
    librapidcheck-dev "$@"
  if [ ! -f build/native/CMakeCache.txt ]; then
    if eigen="$(eigen5)"; then
      options+=("-DTTT_EIGEN_INCLUDE_DIR=$eigen")
    else
      say "Eigen 5.0.1 could not be fetched; the Eigen of the system is used (a third slower)"
    fi
  fi
  cmake --preset native "${options[@]}" >&2
}
