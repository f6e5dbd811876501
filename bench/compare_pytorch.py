#!/usr/bin/env python3
"""Compares the layers with PyTorch's and JAX's on this machine: times, and how many times as fast ours are.

    bench/compare_pytorch.py                        all rows, 9 rounds (half an hour or so)
    bench/compare_pytorch.py --quick                3 rounds, 2048 tokens (a few minutes)
    bench/compare_pytorch.py --rows ttt-linear --threads 1
    bench/compare_pytorch.py --official FILE        beside it the official ttt.py, where you have it

Width 768, 12 heads of 64, mini-batch 16, float, one sequence. Peers: our own TTT layer in PyTorch
(pytorch_peers.py) and in JAX, compiled by XLA (jax_peers.py), torch's scaled_dot_product_attention, LSTM
and LSTMCell, and the Mamba layers of transformers (without its kernels, which need a GPU) and mambapy, in
a virtual environment that is made on first use (a large download). Each round measures ours, then the
peers, both after warm-up calls; times are medians over the rounds, ratios medians of the rounds' ratios
with the lowest and highest. Times of one thread are processor time, those of several real time. Forward is
without what a gradient needs (inference_mode); step is one token of a stream.
build/native/bench/compare_pytorch.csv holds the same numbers.
"""
import argparse
import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
BUILD = os.path.join(ROOT, "build", "native")
PROGRAM = os.path.join(BUILD, "bench", "layers_bench")
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
PACKAGES = {"JAX": ["jax"], "official": ["torch", "transformers"], "transformers": ["torch", "transformers"],
            "mambapy": ["torch", "mambapy"]}  # other peers need torch alone
OUR_OPERATIONS = {"forward+backward": ["forward-cache", "backward"]}  # others have the same name
FACTS = ["machine", "compiler", "flags", "Eigen"]
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
COLUMNS = ["layer", "operation", "T", "threads", "peer", "rounds", "ours_seconds", "peer_seconds",
           "ours_tokens_per_second", "peer_tokens_per_second", "ratio", "ratio_low", "ratio_high"]


class Group(NamedTuple):
    """One measurement of ours and the peers that are held against it. T is 1 for a step."""
    layer: str
    operation: str
    tokens: int
    peers: list

    def __str__(self):
        return f"{self.layer}/{self.operation}/T:{self.tokens}"


def all_groups(options):
    groups = []
    official = ["official"] if options.official else []
    compiled = ["torch.compile"] if options.compile else []
    for layer in ("ttt-linear-t", "ttt-mlp-t"):
        groups += [Group(layer, "forward", tokens, ["PyTorch", "JAX", *compiled, *official])
                   for tokens in (512, 2048, 8192)]
        groups += [Group(layer, "forward+backward", 2048, ["PyTorch", "JAX", *compiled, *official]),
                   Group(layer, "inner-forward", 2048, ["PyTorch", "JAX", *official]),
                   Group(layer, "step", 1, ["PyTorch", *official])]
    for operation in ("forward", "forward+backward"):
        groups += [Group("attention", operation, tokens, ["SDPA"]) for tokens in (2048, 8192)]
    groups += [Group("mamba", "forward", 2048, ["transformers", "mambapy"]),
               Group("mamba", "forward+backward", 2048, ["mambapy"]),
               Group("lstm", "forward+backward", 2048, ["LSTM"]),
               Group("lstm", "step", 1, ["LSTM", "LSTMCell"])]
    return groups


def chosen_groups(options):
    groups = []
    for group in all_groups(options):
        peers = [peer for peer in group.peers if re.search(options.rows, f"{group}/{peer}")]
        if peers and not (options.quick and group.tokens not in (1, 2048)):
            groups.append(group._replace(peers=peers))
    if not groups:
        sys.exit(f"error: no row matches {options.rows!r}; rows are named as in "
                 "ttt-linear-t/forward/T:2048/PyTorch")
    return groups


def run(command, failure, **arguments):
    """Runs it with its output on standard error; leaves with one sentence where it fails."""
    try:
        code = subprocess.run(command, stdout=sys.stderr, **arguments).returncode
    except OSError as error:
        sys.exit(f"error: {failure}: {error}")
    if code != 0:
        sys.exit(f"error: {failure} (exit code {code})")


def build_ours():
    if os.path.exists(os.path.join(BUILD, "CMakeCache.txt")):
        command = ["cmake", "--build", "--preset", "native", "--target", "layers_bench"]
    else:
        command = ["bash", "bench/run.sh", "--benchmark_list_tests"]
    say(f"building layers_bench ({' '.join(command)})")
    run(command, "layers_bench could not be built", cwd=ROOT)


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def pip_install(python, *arguments):
    """The last line that pip wrote, or nothing where all went well."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1",
               "--timeout", "20", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"pip ended with {done.returncode}"


def prepare_python(folder, packages):
    """The Python of a virtual environment that has `packages`; makes it and installs what is missing."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        existed = os.path.exists(folder)
        done = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True)
        if done.returncode != 0:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            sys.exit(f"error: python3 -m venv {folder} failed; where Python's venv module is missing, "
                     "install it (Debian: apt-get install python3-venv)")
    code = "import importlib.util, sys; print(*(p for p in sys.argv[1:] if not importlib.util.find_spec(p)))"
    found = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True)
    if found.returncode != 0:
        sys.exit(f"error: {python} does not run; remove {folder} and start again")
    missing = found.stdout.split()
    if missing:
        say(f"installing {', '.join(missing)} into {folder}; PyTorch is a large download")
    if "torch" in missing and not pip_install(python, "torch", "--index-url", CPU_WHEELS):
        missing.remove("torch")  # else PyPI's, which is larger
    problem = pip_install(python, *missing) if missing else ""
    if problem:
        sys.exit(f"error: pip could not install {', '.join(missing)} into {folder}: {problem} (without a "
                 "network, --venv DIR takes an environment that has them)")
    return python


class Peers:
    """A process that runs peers, PyTorch's or JAX's, with a fixed number of threads."""

    def __init__(self, python, framework, threads, official, log_path):
        self.framework, self.log_path = framework, log_path
        program = os.path.join(ROOT, "bench", f"{framework.lower()}_peers.py")
        command = [python, program, "--threads", str(threads)]
        if official and framework == "PyTorch":
            command += ["--official", official]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
                                    "HF_HUB_OFFLINE": "1"}
        with open(log_path, "a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            text=True, env=environment)
        self.versions = self.read()["versions"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: the {self.framework} process ended with {self.process.wait()}; see {self.log_path}")
        return json.loads(line)

    def measure(self, group, peer):
        """Seconds of a call. Raises RuntimeError where the peer's code failed."""
        request = {"layer": group.layer, "operation": group.operation, "T": group.tokens, "peer": peer}
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # read says so
        answer = self.read()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def end(self):
        self.process.kill()
        self.process.wait()


def run_ours(group, threads):
    """What Google Benchmark says of the run, and of each of the group's operations. T in the name of a
    step is the context that it follows."""
    operations = OUR_OPERATIONS.get(group.operation, [group.operation])
    tokens = 2048 if group.operation == "step" else group.tokens
    name = (f"^{group.layer}/({'|'.join(operations)})/width:768/heads:(12|0)/mini_batch:(16|0)/T:{tokens}/"
            f"threads:{threads}(/real_time)?$")
    command = [PROGRAM, f"--benchmark_filter={name}", "--benchmark_repetitions=1", "--benchmark_min_time=0.1",
               "--benchmark_min_warmup_time=0.05", "--benchmark_format=json"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"error: layers_bench ended with {done.returncode}: {done.stderr.strip()}")
    report = json.loads(done.stdout)
    measured = [row for row in report["benchmarks"] if not row["name"].startswith("peak/")]
    failed = [row["name"] for row in measured if row.get("error_occurred")]
    if len(measured) != len(operations) or failed:
        sys.exit(f"error: layers_bench measured {len(measured) - len(failed)} of {len(operations)} operations of "
                 f"{group} with {threads} threads")
    return report["context"], measured


class Others:
    """What programs other than this one and its own do to the processor from here on."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        """Real time, and processor time of all other programs; ours counts when it has ended."""
        with open("/proc/stat") as file:
            user, nice, system, _, _, *rest = [int(ticks) for ticks in file.readline().split()[1:9]]
        everything = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), everything - sum(os.times()[:4])

    def cores(self):
        """How many cores they kept busy on average."""
        (start, used_before), (end, used) = self.start, self.now()
        return (used - used_before) / (end - start)


class Comparison:
    """Measures groups; collects rows, notes and the facts about both sides."""

    def __init__(self, rounds):
        self.rounds = rounds
        self.rows, self.notes, self.facts = [], [], {}

    def ours(self, group, threads):
        context, measured = run_ours(group, threads)
        self.facts |= {fact: context.get(fact, "not recorded") for fact in FACTS}
        clock = "cpu_time" if threads == 1 else "real_time"
        return sum(row[clock] * SECONDS[row["time_unit"]] for row in measured)

    def measure(self, group, threads, process_of):
        """process_of: of a peer and a number of threads, the process that measures it."""
        times = {peer: [] for peer in ["ours", *group.peers]}
        for _ in range(self.rounds):
            times["ours"].append(self.ours(group, threads))
            for peer in [p for p in times if p != "ours"]:
                try:
                    times[peer].append(process_of(peer, threads).measure(group, peer))
                except RuntimeError as error:
                    del times[peer]
                    self.notes.append(f"{group}/{peer}, threads {threads}, was not measured: {error}")
        ours = times.pop("ours")
        self.rows += [self.row(group, threads, peer, ours, theirs) for peer, theirs in times.items()]

    def row(self, group, threads, peer, ours, theirs):
        ratios = [b / a for a, b in zip(ours, theirs)]
        a, b = statistics.median(ours), statistics.median(theirs)
        return {"layer": group.layer, "operation": group.operation, "T": group.tokens, "threads": threads,
                "peer": peer, "rounds": self.rounds, "ours_seconds": a, "peer_seconds": b,
                "ours_tokens_per_second": group.tokens / a, "peer_tokens_per_second": group.tokens / b,
                "ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}


def print_table(comparison):
    for name, value in comparison.facts.items():
        print(f"{name:9} {value}")
    for note in comparison.notes:
        print(f"note      {note}")
    print()
    widths = [13, 17, 5, 7, 13, 10, 10, 10, 10, 6, 13]
    header = ["layer", "operation", "T", "threads", "peer", "ours ms", "peer ms", "ours tok/s", "peer tok/s",
              "ratio", "low to high"]
    print(line(header, widths))
    for row in comparison.rows:
        print(line([row["layer"], row["operation"], row["T"], row["threads"], row["peer"],
                    f"{1e3 * row['ours_seconds']:.3f}", f"{1e3 * row['peer_seconds']:.3f}",
                    f"{row['ours_tokens_per_second']:.0f}", f"{row['peer_tokens_per_second']:.0f}",
                    f"{row['ratio']:.2f}", f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}"], widths))
    print("\nratio: how many times as fast ours is")


def line(cells, widths):
    texts = [f"{cell:<{w}}" if i in (0, 1, 4) else f"{cell:>{w}}"
             for i, (cell, w) in enumerate(zip(cells, widths))]
    return "  ".join(texts).rstrip()


def write_csv(path, rows):
    def text(value):
        return f"{value:.6g}" if isinstance(value, float) else value

    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: text(value) for key, value in row.items()} for row in rows)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows whose name matches, as in "
                        "ttt-linear-t/forward/T:2048/PyTorch")
    parser.add_argument("--threads", default="1,2" if cores > 1 else "1", metavar="N,...",
                        help="numbers of threads (%(default)s); step has one")
    parser.add_argument("--rounds", type=int, metavar="N", help="9, or 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="3 rounds, 2048 tokens alone")
    parser.add_argument("--official", metavar="FILE", help="ttt.py of test-time-training/ttt-lm-pytorch")
    parser.add_argument("--compile", action="store_true", help="beside eager TTT layers those of torch.compile "
                        "(the whole layer at 512 tokens, else the loop's body; slow to compile)")
    parser.add_argument("--venv", default=os.path.join(ROOT, "build", "pytorch"), metavar="DIR",
                        help="virtual environment with PyTorch and JAX; made where it is missing (build/pytorch)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    try:
        options.threads = [int(n) for n in options.threads.split(",")]
        re.compile(options.rows)
    except (ValueError, re.error) as error:
        parser.error(str(error))
    if not all(1 <= n <= cores for n in options.threads):
        parser.error(f"--threads takes numbers from 1 to {cores}, the cores of this process")
    options.rounds = options.rounds if options.rounds is not None else 3 if options.quick else 9
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, expected at least 1")
    if options.official and not os.path.isfile(options.official):
        parser.error(f"--official: there is no file {options.official}")
    options.official = options.official and os.path.abspath(options.official)
    return options


def compare(options, groups, python, log_path):
    comparison = Comparison(options.rounds)
    cases = [(group, threads) for threads in options.threads for group in groups
             if threads == 1 or group.operation != "step"]
    processes, others = {}, Others()

    def process_of(peer, threads):
        framework = "JAX" if peer == "JAX" else "PyTorch"
        if (framework, threads) not in processes:
            processes[framework, threads] = Peers(python, framework, threads, options.official, log_path)
            comparison.facts[framework] = processes[framework, threads].versions
        return processes[framework, threads]

    try:
        for i, (group, threads) in enumerate(cases):
            say(f"{group}, threads {threads} ({i + 1} of {len(cases)})")
            comparison.measure(group, threads, process_of)
    except KeyboardInterrupt:
        comparison.notes.append("interrupted: rows are missing")
    finally:
        for process in processes.values():
            process.end()
    if others.cores() > 0.1:
        comparison.notes.append(f"other programs kept {others.cores():.1f} cores busy: measure again without "
                                "them; above all several threads wait for each other then")
    return comparison


def main():
    options = parse_options()
    groups = chosen_groups(options)
    packages = dict.fromkeys(package for group in groups for peer in group.peers
                             for package in PACKAGES.get(peer, ["torch"]))
    python = prepare_python(os.path.abspath(options.venv), list(packages))
    build_ours()
    output = os.path.join(BUILD, "bench", "compare_pytorch")
    open(output + ".log", "w").close()
    comparison = compare(options, groups, python, output + ".log")
    write_csv(output + ".csv", comparison.rows)
    if options.json:
        facts = comparison.facts | {"notes": comparison.notes}
        json.dump(facts | {"rows": comparison.rows}, sys.stdout, indent=1)
        print()
    else:
        print_table(comparison)
        print(f"{os.path.relpath(output)}.csv holds the same numbers")
    if not comparison.rows:
        sys.exit("error: no row was measured; the notes say why")


if __name__ == "__main__":
    main()
