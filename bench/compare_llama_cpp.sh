#!/usr/bin/env bash
# Mamba 130m in llama.cpp and here, in turn on this machine: tokens a second of reading a prompt of
# 2048 tokens and of decoding, and how many times llama.cpp's rate ours is.
#
#   bench/compare_llama_cpp.sh --model mamba-130m-f16.gguf
#   bench/compare_llama_cpp.sh --model mamba-130m-f16.gguf --threads 1 --rounds 9
#
# --model FILE   a GGUF file of Mamba 130m, which llama.cpp makes of state-spaces/mamba-130m-hf
#                (python3 convert_hf_to_gguf.py --outtype f16 FOLDER; f32, bf16 and q8_0 as well);
#                with another model the ratios compare different work, and the script says so
# --threads N    threads of both (all cores)
# --rounds N     times that each is run; the table has the medians (3)
#
# llama-bench, a program of llama.cpp, has to be on the PATH. It is run as
# `llama-bench -m FILE -p 2048 -n 64 -t THREADS -o json`. Ours is build/native/bench/models_bench:
# the same shape (24 blocks of width 768, 50280 words, tied head), random weights. Both repeat every
# measurement five times a round; times are real time.
# Compare the decoding whose weights take as many bits as the file's. Our prompt is read in float.
set -euo pipefail
model="" threads="$(nproc)" rounds=3
wrong() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --model | --threads | --rounds)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) wrong "unknown option $1 (see --help)" ;;
  esac
done
[ -n "$model" ] || wrong "--model FILE.gguf is missing (see --help)"
for number in "$threads" "$rounds"; do
  [[ "$number" =~ ^[1-9][0-9]*$ ]] || wrong "--threads and --rounds take a positive number, not $number"
done
command -v llama-bench >/dev/null 2>&1 || wrong "llama-bench is not on the PATH: build it from" \
  "https://github.com/ggml-org/llama.cpp (cmake -B build && cmake --build build --config Release" \
  "--target llama-bench) and add its folder build/bin to the PATH"
[ -r "$model" ] || wrong "there is no file $model to read"
model="$(realpath "$model")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/common.sh

native_preset python3=python3
cmake --build --preset native --target models_bench >&2

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
for ((round = 1; round <= rounds; ++round)); do
  say "round $round of $rounds"
  llama-bench -m "$model" -p 2048 -n 64 -t "$threads" -o json >"$work/theirs.$round" ||
    die "llama-bench failed"
  OMP_NUM_THREADS="$threads" build/native/bench/models_bench --mamba-vocabulary \
    --benchmark_filter="^model-mamba/(prefill|decode).*/threads:$threads(/|\$)" \
    --benchmark_repetitions=5 --benchmark_out="$work/ours.$round" --benchmark_out_format=json >&2
done

PYTHONPATH=bench python3 -B - "$work" "$rounds" "$threads" <<'PYTHON'
import json
import statistics
import sys

from summarize import parse_name, repetitions

OPERATIONS = {"prefill": "prefill, float", "decode": "decode, the model's own float weights",
              "decode-float": "decode, packed as float", "decode-bfloat16": "decode, packed as bfloat16",
              "decode-int8": "decode, packed as int8"}
PARAMETERS = 129_135_360  # of Mamba 130m
MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3}


def read(path):
    try:
        with open(path) as file:
            return json.load(file)
    except ValueError as error:
        program = "llama-bench" if "theirs" in path else "models_bench"
        sys.exit(f"error: {program} printed no JSON: {error}")


def rate(row, tokens):
    """Tokens a second of real time, for one thread too."""
    return tokens / (row["real_time"] * MILLISECONDS[row["time_unit"]] / 1000)


def our_rates(results):
    """Operation -> the mean over a round's repetitions, as llama-bench's avg_ts."""
    rates = {}
    for name, rows in repetitions(results["benchmarks"]).items():
        case = parse_name(name)
        if case["operation"] in OPERATIONS:
            tokens = case["T"] if case["operation"] == "prefill" else 1
            rates[case["operation"]] = statistics.mean(rate(row, tokens) for row in rows)
    if len(rates) < len(OPERATIONS):
        sys.exit(f"error: models_bench measured {', '.join(rates) or 'nothing'} in place of {', '.join(OPERATIONS)}")
    return rates


def their_rates(tests):
    """prefill and decode -> avg_ts. A test has tokens of a prompt or generated ones, not both."""
    rates = {"prefill" if test["n_gen"] == 0 else "decode": test["avg_ts"] for test in tests}
    if len(rates) < 2:
        sys.exit(f"error: llama-bench measured {', '.join(rates) or 'nothing'} in place of prefill, decode")
    return rates


folder, rounds, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3]
theirs = [read(f"{folder}/theirs.{i + 1}") for i in range(rounds)]
ours = [read(f"{folder}/ours.{i + 1}") for i in range(rounds)]
their_rounds, our_rounds = [their_rates(tests) for tests in theirs], [our_rates(results) for results in ours]
test, context = theirs[0][0], ours[0]["context"]

print(f"machine    {context['machine']}; threads {threads}; medians over rounds: {rounds}")
print(f"ours       {context['compiler']}, {context['flags']}, Eigen {context['Eigen']}")
print(f"llama.cpp  {test['build_commit']} ({test['build_number']}), {test.get('backends', 'backend not named')}; "
      f"{test['model_type']}, {test['model_n_params'] / 1e6:.1f} M parameters, {test['model_size'] / 2**20:.0f} MiB")
if abs(test["model_n_params"] / PARAMETERS - 1) > 0.02:
    print(f"note       that is not Mamba 130m, which has {PARAMETERS / 1e6:.1f} M parameters: the ratios compare "
          "different work")
if test.get("gpu_info"):
    print(f"note       this llama-bench sees {test['gpu_info']} and may have used it")

print(f"\n{'':38}{'ours, tok/s':>13}{'llama.cpp, tok/s':>18}{'ratio':>8}")
for operation, label in OPERATIONS.items():
    peer = "prefill" if operation == "prefill" else "decode"
    mine = statistics.median(rates[operation] for rates in our_rounds)
    other = statistics.median(rates[peer] for rates in their_rounds)
    print(f"{label:38}{mine:13.1f}{other:18.1f}{mine / other:8.2f}")
PYTHON
