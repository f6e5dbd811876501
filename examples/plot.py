"""Draws the results of `perplexity`: the pictures of its report, as files for a paper or a talk.

Reads the CSV files that `perplexity --out DIR` left in DIR and writes DIR/plots/*.png and *.svg:

  results        loss on the test text against the training context, where there are several
                 (results.csv)
  training-*     training loss against bytes, seconds and floating-point operations (curves.csv)
  by_position-*  loss by position within the training context (by_position.csv)
  extrapolation-*
                 the same beyond it, with a line at the training context (extrapolation.csv)
  frozen-*       what learning while reading is worth (frozen.csv)
  inner_loss-*   the inner losses of each block (inner_loss.csv)
  decode-*, prefill-*
                 time to write a byte, and speed of reading, by batch (latency.csv)

Pictures whose file is missing are left out. Losses are bits per byte; bands are one standard
error; seeds are averaged; training is drawn from a twentieth of the shortest run on. Layers differ
in colour, dash and marker, so that the pictures can be printed in black and white.
Needs matplotlib: pip install matplotlib, or apt-get install python3-matplotlib.
"""

import argparse
import csv
import math
import os
import sys
from collections import defaultdict

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#000000", "#56b4e9", "#8c7fd6"]
DASHES = ["-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1))]
MARKERS = ["o", "s", "^", "D", "x", "+", "v"]


def read(folder, name):
    """The rows of a CSV file as dictionaries, numbers as floats; none where there is no file."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return []

    def value(text):
        try:
            return float(text) if text else math.nan
        except ValueError:
            return text

    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def distinct(rows, *columns):
    """Distinct values of a column, or tuples of several, in the order of their first appearance."""
    keys = [tuple(row[column] for column in columns) for row in rows]
    return list(dict.fromkeys(key[0] if len(columns) == 1 else key for key in keys))


def number(value):
    """As in names and titles: 1024, 0.5."""
    return f"{value:.0f}" if value == round(value) else f"{value:g}"


def compact(value, _=None):
    """As at an axis: 16384, 200k, 3M."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e5, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:g}"


def average(rows, x, column, error=None, factor=1.0):
    """Mean over rows at equal `x(row)`: lists of x, mean and standard error, by ascending x."""
    groups = defaultdict(list)
    for row in rows:
        if not math.isnan(row[column]):
            groups[x(row)].append(row)
    xs, means, errors = [], [], []
    for at, group in sorted(groups.items()):
        n = len(group)
        mean = sum(row[column] for row in group) / n
        within = math.sqrt(sum(row[error] ** 2 for row in group)) / n if error else math.nan
        spread = sum((row[column] - mean) ** 2 for row in group)
        between = math.sqrt(spread / (n - 1) / n) if n > 1 else math.nan
        known = [e for e in (within, between) if not math.isnan(e)]
        xs.append(at)
        means.append(factor * mean)
        errors.append(factor * max(known) if known and error else math.nan)
    return xs, means, errors


def middle(row):
    """Where a piece of a window stands on a logarithmic axis that counts from one."""
    return math.sqrt((row["position_begin"] + 1) * row["position_end"])


BITS = 1 / math.log(2)


class Plots:
    """Draws into a folder, with one look a layer in all pictures."""

    def __init__(self, matplotlib, folder, layers):
        self.matplotlib = matplotlib
        self.folder = folder
        self.looks = {layer: i for i, layer in enumerate(layers)}
        self.written = 0

    def draw(self, name, title, x_title, y_title, curves, x_log=2, y_log=None, lines=()):
        """`curves`: (name, look or None, x, y, error). `lines`: (name, value, True if vertical)."""
        curves = [curve for curve in curves if curve[2]]
        if not curves:
            return
        figure, axes = self.matplotlib.pyplot.subplots(figsize=(6, 4.2), layout="constrained")
        for i, (label, look, x, y, error) in enumerate(curves):
            look = i if look is None else look
            style = {"color": COLOURS[look % len(COLOURS)]}
            every = max(1, len(x) // 12)
            axes.plot(x, y, label=label, linestyle=DASHES[look % len(DASHES)], linewidth=1.5,
                      marker=MARKERS[look % len(MARKERS)], markersize=5,
                      markevery=(look % every, every), **style)
            if any(not math.isnan(e) for e in error):
                low = [a - e if e == e else a for a, e in zip(y, error)]
                high = [a + e if e == e else a for a, e in zip(y, error)]
                axes.fill_between(x, low, high, alpha=0.18, linewidth=0, **style)
        for label, at, vertical in lines:
            draw_line = axes.axvline if vertical else axes.axhline
            draw_line(at, color="0.3", linestyle=":", linewidth=1)
            axes.annotate(label, (at, 0.98) if vertical else (0.99, at), fontsize=8, va="top",
                          ha="right", rotation=90 if vertical else 0,
                          xycoords=("data", "axes fraction") if vertical
                          else ("axes fraction", "data"))
        self.log_scale(axes.xaxis, axes.set_xscale, x_log)
        if y_log:
            self.log_scale(axes.yaxis, axes.set_yscale, y_log)
        axes.set(title=title, xlabel=x_title, ylabel=y_title)
        axes.grid(alpha=0.2)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=4,
                      frameon=False)
        for kind in ("png", "svg"):
            figure.savefig(os.path.join(self.folder, f"{name}.{kind}"), dpi=160)
        self.matplotlib.pyplot.close(figure)
        self.written += 1

    def log_scale(self, axis, set_scale, base):
        """Ticks at powers of two, or at 1, 2, 3 and 5 times powers of ten, in plain numbers."""
        ticker = self.matplotlib.ticker
        set_scale("log", base=base)
        axis.set_major_locator(ticker.LogLocator(base, subs=(1,) if base == 2 else (1, 2, 3, 5)))
        axis.set_major_formatter(ticker.FuncFormatter(compact))
        axis.set_minor_formatter(ticker.NullFormatter())

    def curves(self, rows, x, column, error=None, factor=1.0):
        """One curve a layer."""
        return [(layer, self.looks[layer],
                 *average([row for row in rows if row["layer"] == layer], x, column, error, factor))
                for layer in distinct(rows, "layer")]

    def results(self, rows):
        models = [row for row in rows if row["layer"] in self.looks]
        if len(distinct(models, "train_context")) < 2:
            return  # one point a layer: results.csv says it better
        curves = self.curves(models, lambda row: row["train_context"], "nats_per_byte", "stderr",
                             BITS)
        counts = [(row["layer"], BITS * row["nats_per_byte"], False)
                  for row in rows if row["layer"] not in self.looks]
        counts = sorted(counts, key=lambda line: line[1])[:1]  # the best of them, a yardstick
        self.draw("results", "Test loss by training context", "training context (bytes)",
                  "bits per byte", curves, lines=counts)

    def training(self, rows):
        kinds = {"tokens": "bytes trained on", "seconds": "training time (seconds)",
                 "flops": "floating-point operations"}
        for context in distinct(rows, "train_context"):
            here = [row for row in rows if row["train_context"] == context]
            for column, title in kinds.items():
                ends = [max(row[column] for row in here if row["layer"] == layer)
                        for layer in distinct(here, "layer")]
                shown = [row for row in here if row[column] >= min(ends) / 20 and row[column] > 0]
                curves = [(label, look, *smooth(x, y)) for label, look, x, y, _ in self.curves(
                    shown, lambda row, column=column: row[column], "nats_per_byte", None, BITS)]
                self.draw(f"training-{number(context)}-{'bytes' if column == 'tokens' else column}",
                          f"Training loss, context {number(context)}", title, "bits per byte",
                          curves, x_log=10)

    def positions(self, name, rows, border):
        for context in distinct(rows, "train_context"):
            first = context / 8 if border else 8
            here = [row for row in rows if row["train_context"] == context
                    and (context < 64 or row["position_end"] > first)]
            curves = self.curves(here, middle, "nats_per_byte", "stderr", BITS)
            lines = [("training context", context, True)] if border else []
            self.draw(f"{name}-{number(context)}",
                      f"Loss by position, training context {number(context)}",
                      "position in the window (bytes)", "bits per byte", curves, lines=lines)

    def frozen(self, rows):
        for layer, context in distinct(rows, "layer", "train_context"):
            here = [row for row in rows
                    if row["layer"] == layer and row["train_context"] == context]
            here = [row for row in here if context < 64 or row["position_end"] > 8]
            curves = []
            for scale in sorted(distinct(here, "inner_rate_scale")):
                meaning = {0: " (no learning)", 1: " (as trained)"}.get(scale, "")
                part = [row for row in here if row["inner_rate_scale"] == scale]
                curves.append((f"rate × {number(scale)}{meaning}", None,
                               *average(part, middle, "nats_per_byte", "stderr", BITS)))
            self.draw(f"frozen-{layer}-{number(context)}",
                      f"{layer}, training context {number(context)}",
                      "position in the window (bytes)", "bits per byte", curves)

    def inner_losses(self, rows):
        kinds = {"initial": "under W₀", "mini_batch_start": "at mini-batch start",
                 "before": "before own step", "after": "after own step"}
        for layer, context, block in distinct(rows, "layer", "train_context", "block"):
            here = [row for row in rows if row["layer"] == layer
                    and row["train_context"] == context and row["block"] == block]
            curves = [(title, None, *average(here, middle, column))
                      for column, title in kinds.items()]
            self.draw(f"inner_loss-{layer}-{number(context)}-{number(block)}",
                      f"{layer}, context {number(context)}, block {number(block)}",
                      "position in the window (bytes)", "inner loss", curves)

    def latency(self, rows):
        kinds = [("decode", "Writing one byte", "milliseconds per byte",
                  "decode_seconds_per_token", 1e3),
                 ("prefill", "Reading a context", "bytes per second",
                  "prefill_tokens_per_second", 1.0)]
        for batch in distinct(rows, "batch"):
            here = [row for row in rows if row["batch"] == batch]
            streams = "one stream" if batch == 1 else f"{number(batch)} streams at once"
            for name, title, y_title, column, factor in kinds:
                curves = self.curves(here, lambda row: row["context"], column, None, factor)
                self.draw(f"{name}-batch-{number(batch)}", f"{title}, {streams}", "context (bytes)",
                          y_title, curves, y_log=10)


def smooth(x, y):
    """Means over 60 pieces of equal width in log x: noise of single batches hides the curves."""
    bins = defaultdict(list)
    for a, b in zip(x, y):
        share = math.log(a / x[0]) / max(1e-9, math.log(x[-1] / x[0]))
        bins[min(59, int(60 * share))].append((a, b))
    means = [[sum(values) / len(values) for values in zip(*points)] for points in bins.values()]
    return [mean[0] for mean in means], [mean[1] for mean in means], [math.nan] * len(means)


def load_matplotlib():
    """matplotlib, set up to write files."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ttt"  # the same picture is the same file
    import matplotlib.pyplot
    import matplotlib.ticker

    return matplotlib


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", help="folder that perplexity wrote (--out)")
    folder = parser.parse_args().folder
    names = ["results", "curves", "by_position", "extrapolation", "frozen", "inner_loss", "latency"]
    tables = {name: read(folder, name + ".csv") for name in names}
    if not any(tables.values()):
        sys.exit(f"plot.py: no results in '{folder}', expected results.csv or another CSV file "
                 "that perplexity wrote with --out")
    try:
        matplotlib = load_matplotlib()
    except ImportError:
        sys.exit("plot.py: matplotlib is missing: pip install matplotlib, or apt-get install "
                 "python3-matplotlib")
    layers = [layer for name in ("results", "curves", "by_position", "extrapolation", "latency")
              for layer in distinct(tables[name], "layer") if not layer.startswith("count-")]
    out = os.path.join(folder, "plots")
    os.makedirs(out, exist_ok=True)
    plots = Plots(matplotlib, out, dict.fromkeys(layers))
    plots.results(tables["results"])
    plots.training(tables["curves"])
    plots.positions("by_position", tables["by_position"], border=False)
    plots.positions("extrapolation", tables["extrapolation"], border=True)
    plots.frozen(tables["frozen"])
    plots.inner_losses(tables["inner_loss"])
    plots.latency(tables["latency"])
    print(f"{plots.written} pictures, each as .png and .svg, in {out}")


if __name__ == "__main__":
    main()
