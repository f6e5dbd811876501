#!/usr/bin/env python3
"""Makes a table and a CSV file of what layers_bench wrote, or a table of what models_bench wrote.

    summarize.py BENCH.json BENCH.csv
    summarize.py --models MODELS.json

Times are medians over the repetitions; ceilings are the best of all their measurements, taken before
and after the layers in the same run. % FMA and % product are shares of these two ceilings at the same
number of threads; bwd/fwd is the time of backward over that of forward for the same case. Rates of
one thread count processor time, those of several count real time.
"""
import csv
import json
import statistics
import sys

COLUMNS = ["layer", "operation", "width", "heads", "mini_batch", "T", "threads",
           "tokens_per_second", "gflops", "percent_of_peak", "bytes"]
CSV_OPERATIONS = ["forward", "backward", "step", "inner-forward"]
SIZES = ["width", "heads", "mini_batch", "T", "threads"]


def parse_name(name):
    """`layer/operation/key:value/...` as a dictionary; unnamed parts after the second are dropped."""
    first, second, *rest = name.split("/")
    sizes = dict(part.split(":", 1) for part in rest if ":" in part)
    return {"layer": first, "operation": second, **{key: int(v) for key, v in sizes.items()}}


def repetitions(benchmarks):
    """The single measurements under each name, in order of appearance."""
    groups = {}
    for row in benchmarks:
        if row["run_type"] != "iteration":
            continue
        if row.get("error_occurred"):
            sys.exit(f"error: {row['name']}: {row['error_message']}")
        groups.setdefault(row["run_name"], []).append(row)
    return groups


def read_ceilings(groups):
    """(kind, threads) -> the most operations a second."""
    best = {}
    for name, rows in groups.items():
        case = parse_name(name)
        if case["layer"] == "peak":
            key = case["operation"], case["threads"]
            best[key] = max([best.get(key, 0)] + [row["flops"] for row in rows])
    return best


def percent(part, whole):
    return 100 * part / whole if whole else None


def read_cases(groups, ceilings):
    cases = []
    for name, rows in groups.items():
        case = parse_name(name)
        if case["layer"] == "peak":
            continue
        flops = statistics.median(row["flops"] for row in rows)
        case["tokens_per_second"] = statistics.median(row["items_per_second"] for row in rows)
        case["gflops"] = flops / 1e9
        case["percent_of_peak"] = percent(flops, ceilings.get(("fma", case["threads"])))
        case["percent_of_product"] = percent(flops, ceilings.get(("product", case["threads"])))
        case["bytes"] = round(rows[0]["bytes"])
        cases.append(case)
    add_ratios(cases)
    return cases


def add_ratios(cases):
    """Time of backward over that of forward, for each case that has both."""
    def key(case):
        return (case["layer"], *(case[size] for size in SIZES))

    forward = {key(c): c["tokens_per_second"] for c in cases if c["operation"] == "forward"}
    for case in cases:
        if case["operation"] == "backward" and key(case) in forward:
            case["ratio"] = forward[key(case)] / case["tokens_per_second"]


def busy_share(groups):
    """How much longer than their processor time the benchmarks of one thread took, at the median."""
    ratios = [row["real_time"] / row["cpu_time"] for name, rows in groups.items()
              for row in rows if parse_name(name)["threads"] == 1 and row["cpu_time"] > 0]
    return statistics.median(ratios) if ratios else 1


def print_table(context, ceilings, cases, busy):
    for fact in ["machine", "threads", "compiler", "flags", "Eigen", "command"]:
        print(f"{fact:9} {context.get(fact, 'not recorded')}")
    for (kind, threads), flops in sorted(ceilings.items()):
        what = "multiply-adds in registers" if kind == "fma" else "product of 1024 x 1024, one a thread"
        print(f"ceiling   {what}, threads {threads}: {flops / 1e9:.1f} GFLOP/s")
    if context.get("library_build_type") == "debug":
        print('note      "Library was built as DEBUG" is how Debian builds Google Benchmark; the layers '
              "are not")
    if busy > 1.1:
        print(f"note      other programs ran: one thread needed {busy:.1f} times its processor time, and what "
              "several threads reached is too low")
    print()
    header = ["layer", "operation", "width", "heads", "b", "T", "threads", "tok/s", "us/tok", "GFLOP/s",
              "% FMA", "% product", "state KiB", "bwd/fwd"]
    widths = [13, 13, 5, 5, 3, 5, 7, 9, 8, 7, 5, 9, 9, 7]
    print(line(header, widths))
    for case in cases:
        def share(name):
            return f"{case[name]:.0f}" if case[name] is not None else "-"

        print(line([case["layer"], case["operation"], *(case[size] for size in SIZES),
                    f"{case['tokens_per_second']:.0f}", f"{1e6 / case['tokens_per_second']:.2f}",
                    f"{case['gflops']:.1f}", share("percent_of_peak"), share("percent_of_product"),
                    f"{case['bytes'] / 1024:.0f}",
                    f"{case['ratio']:.2f}" if "ratio" in case else ""], widths))


def print_limits(cases):
    """How far the baselines are from the part of their work that no code can leave out."""
    seconds = {(c["layer"], c["operation"], c["width"], c["T"], c["threads"]): c["T"] / c["tokens_per_second"]
               for c in cases if c["operation"] != "step"}
    for (layer, operation, *sizes), time in seconds.items():
        def of(name):
            return seconds.get((layer, name, *sizes))

        where = "width {}, T {}, threads {}".format(*sizes)
        if operation == "projections" and of("forward"):
            print(f"limit     {layer} forward takes {of('forward') / time:.2f} times its projections, {where}")
        if operation == "recurrent-limit" and of("forward") and of("input-product"):
            rest = of("forward") - of("input-product")
            print(f"limit     {layer} forward but for the input product takes {rest / time:.2f} times the "
                  f"matrix-vector products alone, {where}")


def print_models(groups):
    """Whole models: tokens a second; of decoding, what share of the memory's best rate it reads."""
    widths = [20, 16, 7, 9, 11]
    print("\n" + line(["model", "operation", "threads", "tok/s", "% of memory"], widths))
    for name, rows in groups.items():
        case = parse_name(name)
        if case["layer"] == "peak":
            continue
        shares = [row["of_memory"] for row in rows if "of_memory" in row]
        print(line([case["layer"], case["operation"], case["threads"],
                    f"{statistics.median(row['items_per_second'] for row in rows):.1f}",
                    f"{100 * statistics.median(shares):.0f}" if shares else ""], widths))


def line(cells, widths):
    texts = [f"{cell:<{w}}" if i < 2 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(cells, widths))]
    return "  ".join(texts).rstrip()


def write_csv(path, cases):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for case in cases:
            if case["operation"] not in CSV_OPERATIONS:
                continue
            peak = case["percent_of_peak"]
            writer.writerow(case | {"tokens_per_second": f"{case['tokens_per_second']:.1f}",
                                    "gflops": f"{case['gflops']:.3f}",
                                    "percent_of_peak": "" if peak is None else f"{peak:.2f}"})


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    models = sys.argv[1] == "--models"
    with open(sys.argv[2 if models else 1]) as file:
        results = json.load(file)
    if models:
        return print_models(repetitions(results["benchmarks"]))
    groups = repetitions(results["benchmarks"])
    ceilings = read_ceilings(groups)
    cases = read_cases(groups, ceilings)
    print_table(results["context"], ceilings, cases, busy_share(groups))
    print_limits(cases)
    write_csv(sys.argv[2], cases)
    print(f"\n{sys.argv[2]} holds the same numbers")


if __name__ == "__main__":
    main()
