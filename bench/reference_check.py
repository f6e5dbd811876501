"""Reads reference values and reports errors, for `--check` of the peers' programs."""
import json
import os
import sys


def read_layer(path, framework):
    """Configuration and tensors of a plain TTT layer; framework: "pt" or "np", as safetensors calls it."""
    from safetensors import safe_open
    with safe_open(path, framework) as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if config["share_qk"] or config["use_gate"]:
        sys.exit(f"error: {path} is of a layer with shared projections or a gate, expected a plain one")
    return config, tensors


def relative_error(value, expected):
    return (abs(value - expected).max() / abs(expected).max()).item()


def largest_error(pairs):
    """Of pairs (value, expected); NaN where one error is."""
    errors = [relative_error(value, expected) for value, expected in pairs]
    return sum(errors) if any(error != error for error in errors) else max(errors)


def report(path, mlp, errors):
    """Prints the errors by name; True where all are small."""
    # Published values of TTT-MLP hold a derivative of GELU with constants rounded to eight digits.
    tolerance = 1e-8 if mlp else 1e-12
    good = all(error < tolerance for error in errors.values())  # NaN is not
    print(f"{'ok  ' if good else 'FAIL'} {os.path.basename(path)}",
          *(f"{name} {error:.1e}" for name, error in errors.items()), sep="  ")
    return good
