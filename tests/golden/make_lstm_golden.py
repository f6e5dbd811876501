#!/usr/bin/env python3
"""Outputs and gradients of torch.nn.LSTM, one layer and one direction, in float64.

Every parameter is random, and so are the states that the two sequences start from. The loss is
L = <output, probe> + <h_n, probe.h_n> + <c_n, probe.c_n>. Written to lstm/lstm.safetensors next to
this script (B = 2, T = 7, D = 6; a tensor that has a gradient gives `grad.<name>` too):

    weight_ih_l0, weight_hh_l0 [4D, D]; bias_ih_l0, bias_hh_l0 [4D]     as torch names them
    input [B, T, D]; h_0, c_0 [B, D]
    output [B, T, D]; h_n, c_n [B, D]
    probe [B, T, D]; probe.h_n, probe.c_n [B, D]

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 numpy==2.4.6 safetensors==0.8.0
    venv/bin/python tests/golden/make_lstm_golden.py
"""

import pathlib

import torch
from safetensors.torch import save_file

B, T, D = 2, 7, 6


def main():
    generator = torch.Generator().manual_seed(11)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    layer = torch.nn.LSTM(D, D, batch_first=True, dtype=torch.float64)
    leaves = dict(layer.named_parameters())
    with torch.no_grad():
        for parameter in leaves.values():
            parameter.copy_(0.5 * random(*parameter.shape))
    for name, shape in (("input", (B, T, D)), ("h_0", (B, D)), ("c_0", (B, D))):
        leaves[name] = random(*shape).requires_grad_()
    probes = {"probe": random(B, T, D), "probe.h_n": random(B, D), "probe.c_n": random(B, D)}

    output, (h_n, c_n) = layer(leaves["input"], (leaves["h_0"][None], leaves["c_0"][None]))
    results = {"output": output, "h_n": h_n[0], "c_n": c_n[0]}
    sum((result * probe).sum() for result, probe in zip(results.values(), probes.values())).backward()

    tensors = leaves | results | probes | {"grad." + name: leaf.grad for name, leaf in leaves.items()}
    folder = pathlib.Path(__file__).parent / "lstm"
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()},
              folder / "lstm.safetensors", metadata={"source": "torch.nn.LSTM"})


if __name__ == "__main__":
    main()
