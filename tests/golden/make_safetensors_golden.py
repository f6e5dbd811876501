#!/usr/bin/env python3
"""Safetensors files of the format's own implementation (PyPI safetensors), and a look at ours.

    make_safetensors_golden.py               write io/dtypes.safetensors next to this script
    make_safetensors_golden.py --read FILE   print what PyPI safetensors finds in FILE
"""

import argparse
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def tensors():
    ramp = torch.arange(6, dtype=torch.float64).reshape(2, 3) - 2.5
    return {
        "f64": ramp / 3,
        "f32": ramp.float() / 3,
        "f16": torch.tensor([0.0, -0.0, 1.5, 6e-8, 65504.0, float("inf"), float("nan")]).half(),
        "bf16": torch.tensor([0.0, -0.0, 1.5, 1e-40, 3e38, -float("inf"), float("nan")]).bfloat16(),
        "i64": torch.tensor([-(2**63), -1, 0, 2**63 - 1]),
        "i32": torch.tensor([[-(2**31)], [2**31 - 1]], dtype=torch.int32),
        "i16": torch.tensor([-32768, 32767], dtype=torch.int16),
        "i8": torch.tensor([-128, 127], dtype=torch.int8),
        "u8": torch.tensor([0, 7, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "a scalar": torch.tensor(0.1, dtype=torch.float64),
        "empty": torch.zeros(3, 0, dtype=torch.float32),
        "name with spaces, \"quotes\" and \u00e9": torch.tensor([1.0]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", metavar="FILE")
    options = parser.parse_args()
    if options.read:
        with safe_open(options.read, "pt") as file:
            print(file.metadata())
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                print(name, tensor.dtype, list(tensor.shape), tensor.flatten().tolist())
        return
    folder = pathlib.Path(__file__).parent / "io"
    folder.mkdir(exist_ok=True)
    save_file(tensors(), folder / "dtypes.safetensors", metadata={"title": "every dtype"})


if __name__ == "__main__":
    main()
