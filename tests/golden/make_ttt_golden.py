#!/usr/bin/env python3
"""Golden values for TTT layers and TTT language models, in float64 (Sun et al., arXiv 2407.04620).

Per sequence and head, a learner f(x; W) = LN(f_res(x; W)) is trained on the tokens themselves:

    f_res(x) = x W1 + b1                             "linear"
    f_res(x) = gelu(x W1 + b1) W2 + b2               "mlp"
    l_t(W)   = 1/2 |f(k_t; W) - (v_t - k_t)|^2       inner loss
    G_t      = dl_t/dW at W = W_t'                   t' = start of the mini-batch of token t
    W_t      = W_t' - tau_i sum_{s=t'..t} lr_s G_s   i = t - t', position in the mini-batch
    z_t      = q_t + f(q_t; W_t)

Everything is written for clarity, one token after the other. Inner gradients come from automatic
differentiation with create_graph=True, so the outer gradients hold all second-order terms.

    make_ttt_golden.py                write the files next to this script, and into nn/ and train/
    make_ttt_golden.py --check DIR    recompute every known file below DIR, print the worst errors
"""

import argparse
import json
import math
import pathlib
import struct
import sys

import numpy as np
import torch
from safetensors import safe_open

LAYER_NORM_EPSILON = 1e-6  # fixed; the RMS norms take theirs from the configuration
SOURCE = "independent evaluation of the equations"


# activations and norms


def gelu(x):
    """Tanh form of GELU."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rounded_gelu_derivative(x):
    """gelu'(x) with the two rounded constants that the official implementation uses."""
    t = torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))
    return 0.5 * x * ((1 - t * t) * (0.79788456 + 0.1070322243 * x * x)) + 0.5 * (1 + t)


class RoundedGelu(torch.autograd.Function):
    """GELU whose derivative has rounded constants, but only inside inner gradients."""

    inside_inner_gradient = False

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return gelu(x)

    @staticmethod
    def backward(ctx, d_output):
        (x,) = ctx.saved_tensors
        if RoundedGelu.inside_inner_gradient:
            return d_output * rounded_gelu_derivative(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (derivative,) = torch.autograd.grad(gelu(leaf).sum(), leaf)
        return d_output * derivative


def layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)  # biased
    return weight * (x - mean) / torch.sqrt(variance + LAYER_NORM_EPSILON) + bias


def rms_norm(x, weight, epsilon):
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon)


def silu(x):
    return x * torch.sigmoid(x)


# inner loop


class Learner:
    """The inner model of every (sequence, head), with the sums of the unfinished mini-batch.

    Parameters are [B, H, rows, columns] (biases have one row), norm weight and bias are [H, f].
    """

    def __init__(self, parameters, norm_weight, norm_bias, mini_batch_size, rounded):
        self.border = parameters  # W_t'
        self.sums = {name: torch.zeros_like(w) for name, w in parameters.items()}  # sum lr_s G_s
        self.norm = (norm_weight[:, None, :], norm_bias[:, None, :])
        self.mini_batch_size = mini_batch_size
        self.activation = RoundedGelu.apply if rounded else gelu
        self.offset = 0  # tokens seen

    def predict(self, w, x):
        """LN(f_res(x; w)) for x [B, H, 1, f]."""
        z = x @ w["W1"] + w["b1"]
        if "W2" in w:
            z = self.activation(z) @ w["W2"] + w["b2"]
        return layer_norm(z, *self.norm)

    def gradient(self, k, v):
        """Inner loss [B, H] and its gradient for one token, at the mini-batch's start."""
        error = self.predict(self.border, k) - (v - k)
        loss = 0.5 * (error * error).sum((-2, -1))
        RoundedGelu.inside_inner_gradient = True
        gradients = torch.autograd.grad(loss.sum(), list(self.border.values()), create_graph=True)
        RoundedGelu.inside_inner_gradient = False
        return loss, dict(zip(self.border, gradients))

    def step(self, q, k, v, rate, tau):
        """One token: q, k, v [B, H, f], rate [B, H], tau [b] -> z [B, H, f], loss, G, W_t."""
        q, k, v = q[:, :, None], k[:, :, None], v[:, :, None]
        position = self.offset % self.mini_batch_size
        loss, gradient = self.gradient(k, v)
        for name, g in gradient.items():
            self.sums[name] = self.sums[name] + rate[:, :, None, None] * g
        w = {name: self.border[name] - tau[position] * self.sums[name] for name in self.border}
        z = q + self.predict(w, q)
        self.offset += 1
        if self.offset % self.mini_batch_size == 0:
            self.border = w
            self.sums = {name: torch.zeros_like(s) for name, s in self.sums.items()}
        return z[:, :, 0], loss, gradient, w


# layer


def causal_convolution(x, weight, bias, state, name):
    """Depthwise, x [B, n, D]; state[name] [B, D, K] holds the last K inputs, oldest first."""
    window = state.get(name)
    if window is None:
        window = x.new_zeros(x.shape[0], x.shape[2], weight.shape[2])
    outputs = []
    for token in x.unbind(1):
        window = torch.cat([window[:, :, 1:], token[:, :, None]], dim=2)
        outputs.append((weight[:, 0, :] * window).sum(-1) + bias)
    state[name] = window
    return torch.stack(outputs, 1)


def rotate(x, position, theta):
    """Rotary embedding of x [B, H, f] on the interleaved pairs (2i, 2i+1)."""
    f = x.shape[-1]
    angle = position * theta ** (-torch.arange(0, f, 2, dtype=x.dtype) / f)
    even, odd = x[..., 0::2], x[..., 1::2]
    pairs = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(pairs, -1).flatten(-2)


def new_learner(p, batch, config):
    names = ["W1", "b1"] + (["W2", "b2"] if config["ttt_layer_type"] == "mlp" else [])
    parameters = {name: p[name].expand(batch, *p[name].shape) for name in names}
    rounded = config.get("gelu_constants") == "rounded"
    norm = (p["ttt_norm_weight"], p["ttt_norm_bias"])
    return Learner(parameters, *norm, config["mini_batch_size"], rounded)


def queries_keys_values(p, x, config, state):
    """q, k, v [B, n, D] before splitting into heads."""
    q = x @ p["q_proj.weight"].T
    v = x @ p["v_proj.weight"].T
    if not config["share_qk"]:
        return q, x @ p["k_proj.weight"].T, v
    k = causal_convolution(q, p["conv_k.weight"], p["conv_k.bias"], state, "ttt_conv_k")
    q = causal_convolution(q, p["conv_q.weight"], p["conv_q.bias"], state, "ttt_conv_q")
    return q, k, v


def ttt_layer(p, x, config, state):
    """x [B, n, D] continues the sequence of `state` (a dict, empty at the start).

    Returns the output [B, n, D] and a dict of intermediate values.
    """
    batch, length, width = x.shape
    heads, b = config["num_attention_heads"], config["mini_batch_size"]
    split = (batch, heads, width // heads)
    if "learner" not in state:
        state["learner"] = new_learner(p, batch, config)
    learner = state["learner"]

    inverse_position = 1 / torch.arange(1, b + 1, dtype=x.dtype)
    tau = torch.clamp(inverse_position + p["learnable_token_idx"], min=0)
    q, k, v = queries_keys_values(p, x, config, state)
    mid = {name: [] for name in ("XQ", "XK", "XV", "ttt_lr_eta")}
    outputs = []
    for t in range(length):
        position = learner.offset % b
        q_t = rotate(q[:, t].reshape(split), position, config["rope_theta"])
        k_t = rotate(k[:, t].reshape(split), position, config["rope_theta"])
        v_t = v[:, t].reshape(split)
        logit = x[:, t] @ p["learnable_ttt_lr_weight"][:, 0].T + p["learnable_ttt_lr_bias"][:, 0]
        rate = config["ttt_base_lr"] * torch.sigmoid(logit) / (width // heads)  # [B, H]
        z, _, _, final = learner.step(q_t, k_t, v_t, rate, tau)
        outputs.append(z.reshape(batch, width))
        for name, value in zip(mid, (q_t, k_t, v_t, rate)):
            mid[name].append(value)

    z = torch.stack(outputs, 1)
    y = layer_norm(z, p["post_norm.weight"], p["post_norm.bias"])
    if config["use_gate"]:
        y = gelu(x @ p["g_proj.weight"].T) * y
    mid = {name: torch.stack(values, 2) for name, values in mid.items()}
    mid |= {"token_eta": tau[:length], "ttt_output": z}
    mid |= {f"final.{name}": w for name, w in final.items()}
    return y @ p["o_proj.weight"].T, mid


# language model


def subset(p, prefix):
    return {name.removeprefix(prefix): w for name, w in p.items() if name.startswith(prefix)}


def block(p, h, config, state):
    """Optional convolution, TTT layer and SwiGLU, each on a normalised residual stream."""
    epsilon = config["rms_norm_eps"]
    if config["pre_conv"]:
        n = rms_norm(h, p["conv.norm.weight"], epsilon)
        h = h + causal_convolution(n, p["conv.conv.weight"], p["conv.conv.bias"], state, "pre_conv")
    n = rms_norm(h, p["seq_norm.weight"], epsilon)
    h = h + ttt_layer(subset(p, "seq_modeling_block."), n, config, state)[0]
    n = rms_norm(h, p["ffn_norm.weight"], epsilon)
    hidden = silu(n @ p["mlp.gate_proj.weight"].T) * (n @ p["mlp.up_proj.weight"].T)
    return h + hidden @ p["mlp.down_proj.weight"].T


def new_states(config):
    return [{} for _ in range(config["num_hidden_layers"])]


def language_model(p, ids, config, states):
    """ids [B, n] continue the sequences of `states` -> logits [B, n, V]."""
    h = p["model.embed_tokens.weight"][ids]
    for index, state in enumerate(states):
        h = block(subset(p, f"model.layers.{index}."), h, config, state)
    head = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    return rms_norm(h, p["model.norm.weight"], config["rms_norm_eps"]) @ p[head].T


def cross_entropy(logits, targets):
    """Mean of -log softmax(logits)[target] over all positions."""
    log_probability = logits - torch.logsumexp(logits, -1, keepdim=True)
    return -log_probability.gather(-1, targets[..., None]).mean()


# one evaluator per kind of file
# evaluate(metadata, tensors) returns every result of the file, from the inputs in `tensors`.


def trainable(tensors, *not_parameters):
    """The parameters of a file as leaves of a new graph."""
    return {
        name: w.clone().requires_grad_()
        for name, w in tensors.items()
        if not name.startswith(not_parameters)
    }


def configuration(metadata):
    """Files that do not say otherwise hold values computed with the rounded constants."""
    constants = metadata.get("gelu_constants", "rounded")
    return dict(json.loads(metadata["config"]), gelu_constants=constants)


def gradients(loss, leaves):
    values = torch.autograd.grad(loss, list(leaves.values()))
    return {f"grad.{name}": g for name, g in zip(leaves, values)}


def evaluate_layer(metadata, tensors):
    p = trainable(tensors, "input.", "output", "probe", "grad.", "mid.")
    x = tensors["input.hidden_states"].clone().requires_grad_()
    output, mid = ttt_layer(p, x, configuration(metadata), {})
    loss = (output * tensors["probe"]).sum()
    results = gradients(loss, p | {"input.hidden_states": x})
    return results | {"output": output} | {f"mid.{name}": value for name, value in mid.items()}


def evaluate_causal_lm(metadata, tensors):
    p = trainable(tensors, "input_ids", "logits", "loss", "grad.")
    ids, config = tensors["input_ids"], configuration(metadata)
    logits = language_model(p, ids, config, new_states(config))
    loss = cross_entropy(logits[:, :-1], ids[:, 1:])
    return {"logits": logits, "loss": loss[None]} | gradients(loss, p)


def evaluate_decode(metadata, tensors):
    p = trainable(tensors, "input_ids", "logits.", "cache.")
    ids, config = tensors["input_ids"], configuration(metadata)
    prefill, states = int(metadata["prefill_len"]), new_states(config)
    chunks = [ids[:, :prefill], *ids[:, prefill:].split(1, dim=1)]
    decode = torch.cat([language_model(p, chunk, config, states) for chunk in chunks], 1)
    parallel = language_model(p, ids, config, new_states(config))
    results = {"logits.decode": decode, "logits.parallel": parallel}
    for index, state in enumerate(states):
        cache = f"cache.layers.{index}."
        learner = state.pop("learner")
        results |= {f"{cache}{name}_states": w for name, w in learner.border.items()}
        results |= {f"{cache}{name}_grad": s for name, s in learner.sums.items()}
        results |= {cache + name: window for name, window in state.items()}
    return results


def run_inner_loop(mini_batch_size, tensors, rounded):
    inputs = {n: w.clone().requires_grad_() for n, w in subset(tensors, "input.").items()}
    batch, _, length, _ = inputs["XQ"].shape
    parameters = {name: inputs[name] for name in ("W1", "b1", "W2", "b2") if name in inputs}
    parameters = {n: w[:, None] if n[0] == "b" else w for n, w in parameters.items()}
    parameters = {n: w.expand(batch, *w.shape) for n, w in parameters.items()}
    norm = (inputs["ttt_norm_weight"], inputs["ttt_norm_bias"])
    learner = Learner(parameters, *norm, mini_batch_size, rounded)
    steps = []
    for t in range(length):
        q, k, v = (inputs[name][:, :, t] for name in ("XQ", "XK", "XV"))
        steps.append(learner.step(q, k, v, inputs["lr"][:, :, t], inputs["tau"]))
    return steps


def evaluate_inner_loop(metadata, tensors):
    steps = run_inner_loop(int(metadata["mini_batch_size"]), tensors, rounded=False)
    z, loss, gradient, w = zip(*steps)
    results = {"output.Z": torch.stack(z, 2), "output.inner_loss": torch.stack(loss, 2)}
    for name, final in w[-1].items():
        g = torch.stack([token[name] for token in gradient], 2)
        is_bias = name[0] == "b"
        results[f"output.G.{name}"] = g.squeeze(-2) if is_bias else g
        results[f"output.W_final.{name}"] = final.squeeze(-2) if is_bias else final
    if metadata["ttt_layer_type"] == "mlp":
        steps = run_inner_loop(int(metadata["mini_batch_size"]), tensors, rounded=True)
        results["output.Z_rounded_gelu_constants"] = torch.stack([step[0] for step in steps], 2)
    return results


def heads_of(tensors):
    return tuple(tensors[f"input.{name}"] for name in "QKV")  # each [B, H, T, f]


def squared_error_gradient(k, v, w):
    """d|k w - v|^2 / dw for one token: k, v [B, H, f], w [B, H, f, f]."""
    leaf = w.detach().requires_grad_()
    loss = ((k[:, :, None] @ leaf - v[:, :, None]) ** 2).sum()
    return torch.autograd.grad(loss, leaf)[0]


def evaluate_theorem1(metadata, tensors):
    """Linear learner, all gradients at W = 0, versus unnormalised causal linear attention."""
    q, k, v = heads_of(tensors)
    batch, heads, length, f = q.shape
    start = q.new_zeros(batch, heads, f, f)
    w, outputs = start, []
    for t in range(length):
        w = w - float(metadata["eta"]) * squared_error_gradient(k[:, :, t], v[:, :, t], start)
        outputs.append((q[:, :, t, None] @ w).squeeze(2))
    attention = torch.tril(q @ k.mT) @ v
    return {
        "output.ttt": torch.stack(outputs, 2),
        "output.linear_attention": attention,
        "output.W_final": w,
    }


def evaluate_theorem2(metadata, tensors):
    """Nadaraya-Watson estimator with kernel exp(k.q) versus causal softmax attention."""
    q, k, v = heads_of(tensors)
    length, outputs = q.shape[2], []
    for t in range(length):
        kernel = torch.exp((k[:, :, : t + 1] * q[:, :, t, None]).sum(-1, keepdim=True))
        outputs.append((kernel * v[:, :, : t + 1]).sum(2) / kernel.sum(2))
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    attention = torch.softmax((q @ k.mT).masked_fill(future, -math.inf), -1) @ v
    return {"output.nadaraya_watson": torch.stack(outputs, 2), "output.softmax_attention": attention}


def evaluate_deltanet(metadata, tensors):
    """Online linear learner, loss 1/2 |k W - v|^2, versus S (I - beta k k^T) + beta v k^T."""
    q, k, v = heads_of(tensors)
    batch, _, length, f = q.shape
    beta = tensors["input.beta"][..., None, None]
    w = tensors["input.W0"].expand(batch, -1, -1, -1)
    s, learner, delta = w.mT, [], []
    for t in range(length):
        w = w - beta[:, :, t] * 0.5 * squared_error_gradient(k[:, :, t], v[:, :, t], w)
        learner.append((q[:, :, t, None] @ w).squeeze(2))
        column = k[:, :, t, :, None]
        forget = torch.eye(f, dtype=q.dtype) - beta[:, :, t] * column @ column.mT
        s = s @ forget + beta[:, :, t] * v[:, :, t, :, None] @ column.mT
        delta.append((s @ q[:, :, t, :, None]).squeeze(-1))
    results = {"output.ttt": learner, "output.deltanet": delta}
    return {name: torch.stack(z, 2) for name, z in results.items()} | {"output.W_final": w}


def learning_rate(step, h):
    """Linear warm-up, then cosine; steps count from 1."""
    if step <= h["warmup_steps"]:
        return h["peak_learning_rate"] * step / h["warmup_steps"]
    progress = (step - h["warmup_steps"]) / (h["total_steps"] - h["warmup_steps"])
    amplitude = h["peak_learning_rate"] - h["final_learning_rate"]
    return h["final_learning_rate"] + 0.5 * amplitude * (1 + math.cos(math.pi * progress))


def inner_rate_scale(step, h, base):
    """Warm-up multiplier of the inner learning rate; steps count from 1."""
    if h["inner_warmup_steps"] == 0:
        return 1.0
    initial = h["inner_initial_rate"]
    fraction = min(1.0, (step - 1) / h["inner_warmup_steps"])
    return (initial + fraction * (base - initial)) / base


def evaluate_training(metadata, tensors):
    """AdamW steps on the batches of `input_ids` [steps, B, T+1]."""
    h, config = json.loads(metadata["hyperparameters"]), configuration(metadata)
    p = trainable(subset(tensors, "initial."))
    optimizer = torch.optim.AdamW(
        p.values(), betas=h["betas"], eps=h["epsilon"], weight_decay=h["weight_decay"], foreach=False
    )
    log = {name: [] for name in ("losses", "gradient_norms", "learning_rates", "inner_rate_scales")}
    for step, ids in enumerate(tensors["input_ids"], start=1):
        scale = inner_rate_scale(step, h, config["ttt_base_lr"])
        scaled = dict(config, ttt_base_lr=config["ttt_base_lr"] * scale)
        logits = language_model(p, ids[:, :-1], scaled, new_states(config))
        loss = cross_entropy(logits, ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(p.values(), h["clip_norm"])
        optimizer.param_groups[0]["lr"] = learning_rate(step, h)
        optimizer.step()
        for name, value in zip(log, (loss, norm, learning_rate(step, h), scale)):
            log[name].append(torch.as_tensor(value, dtype=torch.float64).detach())
    results = {name: torch.stack(values) for name, values in log.items()}
    return results | {f"final.{name}": w for name, w in p.items()}


def evaluate_activations(metadata, tensors):
    """Value and two derivatives of each activation at the points x."""
    x = tensors["x"].clone().requires_grad_()
    results = {}

    def differentiate(y):
        return torch.autograd.grad(y.sum(), x, create_graph=True, materialize_grads=True)[0]

    functions = {"gelu": gelu, "silu": silu, "relu": torch.relu, "tanh": torch.tanh}
    for name, function in functions.items():
        value = function(x)
        first = differentiate(value)
        results |= {f"{name}.value": value, f"{name}.first_derivative": first}
        results[f"{name}.second_derivative"] = differentiate(first)
    first = rounded_gelu_derivative(x)
    results["gelu_rounded_constants.first_derivative"] = first
    results["gelu_rounded_constants.second_derivative"] = differentiate(first)
    return results


EVALUATORS = {
    "ttt_layer": evaluate_layer,
    "ttt_causal_lm": evaluate_causal_lm,
    "ttt_decode": evaluate_decode,
    "ttt_inner_loop": evaluate_inner_loop,
    "ttt_training": evaluate_training,
    "theorem1": evaluate_theorem1,
    "theorem2": evaluate_theorem2,
    "deltanet": evaluate_deltanet,
    "activations": evaluate_activations,
}


# random inputs


class Draw:
    """Seeded random tensors, exactly representable in float32."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def normal(self, shape, scale=1.0, mean=0.0):
        values = mean + scale * self.generator.standard_normal(shape)
        return torch.from_numpy(values.astype(np.float32).astype(np.float64))

    def uniform(self, shape, low, high):
        values = self.generator.uniform(low, high, shape)
        return torch.from_numpy(values.astype(np.float32).astype(np.float64))

    def ids(self, shape, vocabulary):
        return torch.from_numpy(self.generator.integers(0, vocabulary, shape))


def layer_shapes(config):
    d, heads, kernel = (config[k] for k in ("hidden_size", "num_attention_heads", "conv_kernel"))
    f = d // heads
    hidden = 4 * f if config["ttt_layer_type"] == "mlp" else f
    shapes = {"W1": (heads, f, hidden), "b1": (heads, 1, hidden)}
    if config["ttt_layer_type"] == "mlp":
        shapes |= {"W2": (heads, hidden, f), "b2": (heads, 1, f)}
    shapes |= {
        "learnable_token_idx": (config["mini_batch_size"],),
        "learnable_ttt_lr_weight": (heads, 1, d),
        "learnable_ttt_lr_bias": (heads, 1),
        "ttt_norm_weight": (heads, f),
        "ttt_norm_bias": (heads, f),
        "post_norm.weight": (d,),
        "post_norm.bias": (d,),
    }
    projections = "qvo" + ("" if config["share_qk"] else "k") + ("g" if config["use_gate"] else "")
    shapes |= {f"{name}_proj.weight": (d, d) for name in projections}
    if config["share_qk"]:
        for name in "qk":
            shapes |= {f"conv_{name}.weight": (d, 1, kernel), f"conv_{name}.bias": (d,)}
    return shapes


def model_shapes(config):
    d, hidden = config["hidden_size"], config["intermediate_size"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], d), "model.norm.weight": (d,)}
    for index in range(config["num_hidden_layers"]):
        layer = {
            "seq_norm.weight": (d,),
            "ffn_norm.weight": (d,),
            "mlp.gate_proj.weight": (hidden, d),
            "mlp.up_proj.weight": (hidden, d),
            "mlp.down_proj.weight": (d, hidden),
        }
        if config["pre_conv"]:
            layer |= {
                "conv.norm.weight": (d,),
                "conv.conv.weight": (d, 1, config["conv_kernel"]),
                "conv.conv.bias": (d,),
            }
        layer |= {f"seq_modeling_block.{n}": s for n, s in layer_shapes(config).items()}
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


def draw_parameter(draw, name, shape):
    """No parameter stays at its usual initial value, so every term of the equations counts."""
    if name.endswith("learnable_token_idx"):
        value = draw.normal(shape, 0.1)
        value[shape[0] // 2] = -0.75  # the clamp of the position factor is active here
        return value
    if "norm" in name and name.endswith("weight"):
        return draw.normal(shape, 0.2, mean=1.0)
    if name.endswith(("bias", "b1", "b2")):
        return draw.normal(shape, 0.3)
    if name.endswith("embed_tokens.weight"):
        return draw.normal(shape, 0.7)
    fan_in = shape[-2] if name.endswith(("W1", "W2")) else shape[-1]
    return draw.normal(shape, 1 / math.sqrt(fan_in))


def draw_parameters(draw, shapes):
    return {name: draw_parameter(draw, name, shape) for name, shape in shapes.items()}


# the files

DEFAULT_CONFIG = {
    "vocab_size": 17,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "use_cache": False,
    "pretraining_tp": 1,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "use_gate": False,
    "share_qk": False,
    "ttt_layer_type": "linear",
    "ttt_base_lr": 1.0,
    "mini_batch_size": 4,
    "pre_conv": False,
    "conv_kernel": 4,
    "scan_checkpoint_group_size": 0,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "model_type": "ttt",
}
MAMBA = {"share_qk": True, "use_gate": True}
MLP = {"ttt_layer_type": "mlp", "ttt_base_lr": 0.3}
BATCH = 2

HYPERPARAMETERS = {
    "optimizer": "AdamW",
    "betas": [0.9, 0.95],
    "epsilon": 1e-8,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "total_steps": 10,
    "warmup_steps": 3,
    "peak_learning_rate": 3e-3,
    "final_learning_rate": 1e-5,
    "inner_initial_rate": 0.0,
    "inner_warmup_steps": 0,
}
TRAINING_FORMULAS = {
    "learning_rate": "step s = 1..total; s <= warmup: peak*s/warmup; after: "
    "final + 0.5*(peak-final)*(1+cos(pi*(s-warmup)/(total-warmup)))",
    "inner_rate_scale": "(initial + min(1,(s-1)/inner_warmup)*(ttt_base_lr-initial))/ttt_base_lr, "
    "a factor of every inner learning rate; 1 where inner_warmup_steps is 0",
    "clip": "gradient * min(1, clip_norm/(norm+1e-6)), norm over all parameters together",
    "loss": "mean cross entropy over all batch*seq_len targets; inputs are input_ids[:, :-1], "
    "targets are input_ids[:, 1:]",
}


def layer_file(seed, length, **overrides):
    config = DEFAULT_CONFIG | overrides
    draw = Draw(seed)
    shape = (BATCH, length, config["hidden_size"])
    inputs = draw_parameters(draw, layer_shapes(config))
    inputs |= {"input.hidden_states": draw.normal(shape), "probe": draw.normal(shape)}
    metadata = {"config": config, "seq_len": length, "loss": "sum(output*probe)"}
    return "ttt_layer", seed, metadata, inputs


def model_inputs(seed, length, config):
    draw = Draw(seed)
    inputs = draw_parameters(draw, model_shapes(config))
    return inputs | {"input_ids": draw.ids((BATCH, length), config["vocab_size"])}


def causal_lm_file(seed, length, **overrides):
    config = DEFAULT_CONFIG | overrides
    loss = "mean next-token cross entropy over batch*(seq_len-1) positions, labels = input_ids"
    metadata = {"config": config, "seq_len": length, "loss": loss}
    return "ttt_causal_lm", seed, metadata, model_inputs(seed, length, config)


def decode_file(seed, length, prefill, **overrides):
    config = DEFAULT_CONFIG | overrides
    sizes = {"seq_len": length, "prefill_len": prefill, "seqlen_offset": length}
    return "ttt_decode", seed, {"config": config} | sizes, model_inputs(seed, length, config)


def training_start(parameters):
    """Smaller embedding and output projections: gradient norms on both sides of the clip norm."""
    scales = {"embed_tokens.weight": 1 / 8, "o_proj.weight": 1 / 4, "down_proj.weight": 1 / 4}
    factors = {n: s for n in parameters for end, s in scales.items() if n.endswith(end)}
    return {f"initial.{name}": w * factors.get(name, 1) for name, w in parameters.items()}


def training_file(seed, length, hyperparameters=None, **overrides):
    config = DEFAULT_CONFIG | overrides
    h = HYPERPARAMETERS | (hyperparameters or {})
    draw = Draw(seed)
    inputs = training_start(draw_parameters(draw, model_shapes(config)))
    shape = (h["total_steps"], BATCH, length + 1)
    inputs["input_ids"] = draw.ids(shape, config["vocab_size"])
    metadata = {"config": config, "seq_len": length, "hyperparameters": h}
    return "ttt_training", seed, metadata | TRAINING_FORMULAS, inputs


def inner_loop_file(seed, layer_type, length=10, heads=2, f=4, b=4):
    config = {"ttt_layer_type": layer_type, "hidden_size": heads * f, "num_attention_heads": heads}
    draw = Draw(seed)
    p = draw_parameters(draw, layer_shapes(DEFAULT_CONFIG | config))
    names = [n for n in ("W1", "b1", "W2", "b2", "ttt_norm_weight", "ttt_norm_bias") if n in p]
    inputs = {f"input.{n}": p[n].squeeze(1) if n[0] == "b" else p[n] for n in names}
    inputs |= {f"input.{n}": draw.normal((1, heads, length, f)) for n in ("XQ", "XK", "XV")}
    inputs |= {"input.lr": draw.uniform((1, heads, length), 0.02, 0.3)}
    inputs |= {"input.tau": draw.uniform(b, 0.2, 1.0)}
    sizes = {"batch": 1, "seq_len": length, "num_heads": heads, "head_dim": f, "mini_batch_size": b}
    metadata = sizes | {"ttt_layer_type": layer_type, "ln_eps": LAYER_NORM_EPSILON}
    return "ttt_inner_loop", seed, metadata, inputs


def attention_file(seed, kind, metadata):
    draw = Draw(seed)
    shape = batch, heads, length, f = 2, 2, 11, 4
    inputs = {f"input.{name}": draw.normal(shape, 0.8) for name in "QKV"}
    if kind == "deltanet":
        inputs["input.beta"] = draw.uniform((batch, heads, length), 0.05, 0.6)
        inputs["input.W0"] = draw.normal((heads, f, f), 0.5)
    return kind, seed, metadata, inputs


def activations_file():
    x = torch.from_numpy(np.linspace(-6, 6, 41).astype(np.float32).astype(np.float64))
    x[20] = 0.0
    note = "tanh form of GELU; at 0 both derivatives of ReLU count as 0"
    return "activations", 0, {"note": note}, {"x": x}


def files():
    inner_warmup = {"inner_initial_rate": 0.01, "inner_warmup_steps": 4}
    squared_error = "||k W - v||^2 (no factor 1/2)"
    half_squared_error = "1/2 ||k W - v||^2, step beta_t, no bias, no LN"
    kernel = "exp(k_s . q_t), no 1/sqrt(d) scale"
    small_kernel = {"hidden_size": 12, "num_attention_heads": 3, "conv_kernel": 3}
    return {
        "ttt_layer_linear_plain_b4_t10": layer_file(1, 10),
        "ttt_layer_linear_shareqk_gate_b4_t11": layer_file(2, 11, hidden_size=12, **MAMBA),
        "ttt_layer_mlp_plain_b4_t9": layer_file(3, 9, **MLP),
        "ttt_layer_mlp_shareqk_gate_b16_t18": layer_file(
            4, 18, mini_batch_size=16, **small_kernel, **MLP, **MAMBA
        ),
        "ttt_lm_linear_M_preconv": causal_lm_file(5, 10, hidden_size=12, pre_conv=True, **MAMBA),
        "ttt_lm_mlp_T": causal_lm_file(6, 11, **MLP),
        "ttt_decode_linear_M_b4_p6_t15": decode_file(7, 15, 6, pre_conv=True, **MAMBA),
        "ttt_decode_mlp_T_b4_p4_t11": decode_file(8, 11, 4, **MLP),
        "inner_linear_b4": inner_loop_file(9, "linear"),
        "inner_mlp_b4": inner_loop_file(10, "mlp"),
        "theorem1_linear_attention": attention_file(
            11, "theorem1", {"eta": 0.5, "inner_loss": squared_error}
        ),
        "theorem2_softmax_attention": attention_file(12, "theorem2", {"kernel": kernel}),
        "online_ttt_linear_deltanet": attention_file(
            13, "deltanet", {"inner_loss": half_squared_error}
        ),
        "train/ttt_training_linear_M_preconv": training_file(14, 13, pre_conv=True, **MAMBA),
        "train/ttt_training_mlp_T": training_file(
            15, 13, inner_warmup, ttt_layer_type="mlp", ttt_base_lr=0.1
        ),
        "nn/activations": activations_file(),
    }


TOLERANCE = "float64: 1e-11 relative to the largest entry of each tensor"
TYPE_NAMES = {torch.float64: "F64", torch.int64: "I64"}


def save(path, tensors, metadata):
    """A safetensors file with sorted names; the library's own writer shuffles the metadata."""
    header, offset, data = {"__metadata__": dict(sorted(metadata.items()))}, 0, b""
    for name, tensor in sorted(tensors.items()):
        data += tensor.detach().contiguous().numpy().tobytes()
        entry = {"dtype": TYPE_NAMES[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = entry | {"data_offsets": [offset, len(data)]}
        offset = len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data start at a multiple of 8 bytes
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write(directory):
    for name, (kind, seed, metadata, inputs) in files().items():
        text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
        text = {"batch": str(BATCH), "gelu_constants": "exact"} | text
        text |= {"kind": kind, "seed": str(seed), "dtype": "float64", "source": SOURCE}
        text["expected_tolerance"] = TOLERANCE
        results = EVALUATORS[kind](text, inputs)
        path = directory / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save(path, inputs | results, text | {"format": "pt"})
        print(f"{path.name}: {path.stat().st_size} bytes")


# checking


def relative_error(actual, expected):
    """Largest difference relative to the largest expected entry; infinite if not comparable."""
    if actual.shape != expected.shape or not actual.isfinite().all():
        return math.inf
    scale = float(expected.abs().max())
    return float((actual - expected).abs().max()) / (scale if scale > 0 else 1.0)


RESULTS = ("output", "grad.", "mid.", "logits", "loss", "cache.", "final.")


def check_file(path):
    """Worst error (error, tensor) and number of tensors compared, or None for an unknown kind."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if metadata.get("kind") not in EVALUATORS:
        return None
    results = EVALUATORS[metadata["kind"]](metadata, tensors)
    stored_only = [n for n in tensors if n.startswith(RESULTS) and n not in results]
    if stored_only:
        return math.inf, f"not recomputed: {stored_only}", 0
    common = [name for name in results if name in tensors]
    errors = [(relative_error(results[name].detach(), tensors[name]), name) for name in common]
    return *max(errors), len(common)


def check(directory, tolerance):
    worst, total = (0.0, "nothing"), 0
    for path in sorted(directory.rglob("*.safetensors")):
        outcome = check_file(path)
        if outcome is None:
            print(f"{'skipped':>9}  {path.name}")
            continue
        error, name, count = outcome
        total += count
        worst = max(worst, (error, f"{path.name}: {name}"))
        print(f"{error:9.1e}  {path.name}: worst of {count} tensors is {name}", flush=True)
    print(f"{worst[0]:9.1e}  worst of {total} tensors ({worst[1]}), tolerance {tolerance:.0e}")
    return total > 0 and worst[0] <= tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", type=pathlib.Path, metavar="DIR", help="recompute and compare")
    parser.add_argument("--tolerance", type=float, default=1e-11, help="relative, for --check")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.check:
        sys.exit(0 if check(arguments.check, arguments.tolerance) else 1)
    write(pathlib.Path(__file__).resolve().parent)


if __name__ == "__main__":
    main()
