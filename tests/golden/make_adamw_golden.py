#!/usr/bin/env python3
"""Trajectories of torch.optim.AdamW and torch.nn.utils.clip_grad_norm_.

Two tensors, a [3, 5] with weight decay and b [4] without, twelve updates at a rate that changes,
in float64 and in float32. Written to train/adamw.safetensors next to this script:

    <type>.rate [12]                     learning rates
    <type>.gradient.<tensor> [12, ...]   before clipping to the norm 2
    <type>.norm [12]                     norm before clipping
    <type>.clipped.<tensor> [12, ...]    after clipping
    <type>.<tensor> [13, ...]            parameters before the first and after each update
"""

import pathlib

import torch
from safetensors.torch import save_file

UPDATES, MAX_NORM = 12, 2.0


def trajectory(dtype):
    generator = torch.Generator().manual_seed(7)
    shapes = {"a": (3, 5), "b": (4,)}
    parameters = {
        name: torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in shapes.items()
    }
    groups = [{"params": [parameters["a"]], "weight_decay": 0.1},
              {"params": [parameters["b"]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    record = {"rate": [], "norm": []}
    for name, parameter in parameters.items():
        record |= {name: [parameter.detach().clone()], "gradient." + name: [], "clipped." + name: []}
    for k in range(UPDATES):
        rate = 0.02 * (k + 1) / (1 + k * k / 8)
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in parameters.items():
            scale = 0.1 + 0.2 * k
            parameter.grad = (scale * torch.randn(parameter.shape, generator=generator)).to(dtype)
            record["gradient." + name].append(parameter.grad.clone())
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_NORM)
        record["rate"].append(torch.tensor(rate, dtype=torch.float64))
        record["norm"].append(norm)
        for name, parameter in parameters.items():
            record["clipped." + name].append(parameter.grad.clone())
        optimizer.step()
        for name, parameter in parameters.items():
            record[name].append(parameter.detach().clone())
    return {name: torch.stack(values) for name, values in record.items()}


def main():
    tensors = {}
    for prefix, dtype in (("f64.", torch.float64), ("f32.", torch.float32)):
        tensors |= {prefix + name: values for name, values in trajectory(dtype).items()}
    folder = pathlib.Path(__file__).parent / "train"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adamw.safetensors", metadata={"source": "torch.optim.AdamW"})
    print({name: values.tolist() for name, values in tensors.items() if name.endswith("norm")})


if __name__ == "__main__":
    main()
