#!/usr/bin/env python3
"""The JAX side of compare_pytorch.py, which runs it with the Python of its virtual environment.

    jax_peers.py --check FILE...    our TTT layer against reference values
    jax_peers.py --threads N        measures what its standard input asks for (peer_server.py)

The TTT layer here is our own, written from the equations for XLA: what does not depend on the inner
weights is computed for all mini-batches at once, the rest is a scan over mini-batches with one batched
product for all heads. The layer is compiled as a whole, its gradient is the compiled adjoint of the
scan. The reference files are those of pytorch_peers.py.
"""
import argparse
import os
import sys

import peer_server
from reference_check import largest_error, read_layer, relative_error, report

WIDTH, HEADS, MINI_BATCH = 768, 12, 16
EPSILON = 1e-6


def start_jax(threads):
    """Imports JAX for the processor; its pool has a thread for each core that the process may use then."""
    global jax, jnp, np
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")
    import jax
    import numpy as np
    from jax import numpy as jnp


def normalize(z):
    """(z - mean) / s over the last axis, and 1 / s."""
    centred = z - z.mean(-1, keepdims=True)
    inverse_s = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + EPSILON)
    return centred * inverse_s, inverse_s


def loss_gradient(z, offset, gamma_squared):
    """dLoss/dz of 1/2 |gamma z_hat + beta - target|^2, z_hat = LayerNorm(z).

    offset: gamma (beta - target)."""
    z_hat, inverse_s = normalize(z)
    d = offset + z_hat * gamma_squared
    return (d - d.mean(-1, keepdims=True) - z_hat * (d * z_hat).mean(-1, keepdims=True)) * inverse_s


def gelu(x):
    return jax.nn.gelu(x, approximate=True)


def inner_gradients(weights, k, offset, gamma_squared):
    """For each inner layer its input on the keys [H, n, in] and dLoss/d(its output) [H, n, out]."""
    z = k @ weights[0] + weights[1]
    if len(weights) == 2:
        return [(k, loss_gradient(z, offset, gamma_squared))]
    hidden, pull_back = jax.vjp(gelu, z)
    d_out = loss_gradient(hidden @ weights[2] + weights[3], offset, gamma_squared)
    return [(k, pull_back(d_out @ weights[2].mT)[0]), (hidden, d_out)]


def learn_mini_batch(weights, q, k, offset, gamma_squared, eta, mixing):
    """The dual form on one mini-batch of n tokens: the weights after it, and the outputs on the queries
    before LayerNorm [H, n, f].

    eta: tril(tau_i lr_j) [H, n, n]; mixing: eta o (q k' + 1), known before the inner weights are."""
    last = eta[:, -1:]
    updated, z = [], q
    for i, (x, d_out) in enumerate(inner_gradients(weights, k, offset, gamma_squared)):
        W, b = weights[2 * i:2 * i + 2]
        if i > 0:
            z = gelu(z)
            mixing = eta + eta * (z @ x.mT)
        z = z @ W + b - mixing @ d_out
        updated += [W - (x.mT * last) @ d_out, b - last @ d_out]
    return updated, z


def rotate(x, theta=1e4):
    """[N, n, H, f], pairs of neighbours, at the positions 0 .. n-1 of each mini-batch."""
    n, f = x.shape[1], x.shape[-1]
    angles = np.repeat(np.arange(n)[:, None] * theta ** (-np.arange(0, f, 2) / f), 2, -1)
    signs = np.tile([-1, 1], f // 2)
    cos, sin = (jnp.asarray(values[:, None], x.dtype) for values in (np.cos(angles), np.sin(angles) * signs))
    neighbours = x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape)
    return x * cos + neighbours * sin


def by_head(x):
    """[N, n, H, f] -> [N, H, n, f]"""
    return x.swapaxes(1, 2)


def inner_inputs(p, x, n, base_rate):
    """q, k, v [N, H, n, f] and lr [N, H, 1, n] of N mini-batches of n tokens, x [N n, D]."""
    heads, f = p["ttt_norm_weight"].shape
    q, k, v = ((x @ p[f"{name}_proj.weight"].T).reshape(-1, n, heads, f) for name in "qkv")
    gate = x @ p["learnable_ttt_lr_weight"][:, 0].T + p["learnable_ttt_lr_bias"][:, 0]
    rate = jax.nn.sigmoid(gate).reshape(-1, n, heads, 1) * (base_rate / f)
    return by_head(rotate(q)), by_head(rotate(k)), by_head(v), by_head(rate).mT


def inner(p, weights, q, k, v, rate):
    """The inner loop over N mini-batches: the weights after it and the outputs [N, H, n, f]."""
    n = q.shape[-2]
    gamma, beta = p["ttt_norm_weight"][:, None], p["ttt_norm_bias"][:, None]
    positions = jnp.arange(1, p["learnable_token_idx"].size + 1)
    tau = jnp.maximum(1 / positions.astype(q.dtype) + p["learnable_token_idx"], 0)
    eta = jnp.tril(tau[:n, None] * rate)
    inputs = q, k, (beta + k - v) * gamma, eta, eta + eta * (q @ k.mT)

    def learn(weights, inputs):
        q, k, offset, eta, mixing = inputs
        return learn_mini_batch(weights, q, k, offset, gamma * gamma, eta, mixing)
    weights, z = jax.lax.scan(learn, weights, inputs)
    return weights, q + beta + normalize(z)[0] * gamma


def layer(p, x, mini_batch=MINI_BATCH, base_rate=1.0):
    """A TTT layer of the Transformer backbone: x [T, D] -> y [T, D]."""
    weights = [p[name] for name in ("W1", "b1", "W2", "b2") if name in p]
    whole, parts = len(x) - len(x) % mini_batch, []
    for piece, n in ((x[:whole], mini_batch), (x[whole:], len(x) - whole)):
        if len(piece) > 0:
            weights, z = inner(p, weights, *inner_inputs(p, piece, n, base_rate))
            parts.append(by_head(z).reshape(piece.shape))
    z_hat = normalize(jnp.concatenate(parts))[0]
    return (z_hat * p["post_norm.weight"] + p["post_norm.bias"]) @ p["o_proj.weight"].T


def random_parameters(mlp, random):
    def normal(*shape):
        return 0.02 * random.standard_normal(shape, np.float32)

    f = WIDTH // HEADS
    widths = [f, 4 * f, f] if mlp else [f, f]
    p = {"learnable_token_idx": np.zeros(MINI_BATCH, np.float32),
         "learnable_ttt_lr_weight": normal(HEADS, 1, WIDTH), "learnable_ttt_lr_bias": normal(HEADS, 1),
         "ttt_norm_weight": np.ones((HEADS, f), np.float32), "ttt_norm_bias": normal(HEADS, f),
         "post_norm.weight": np.ones(WIDTH, np.float32), "post_norm.bias": normal(WIDTH)}
    p |= {f"{name}_proj.weight": normal(WIDTH, WIDTH) for name in "qkvo"}
    for i in range(len(widths) - 1):
        p |= {f"W{i + 1}": normal(HEADS, widths[i], widths[i + 1]), f"b{i + 1}": normal(HEADS, 1, widths[i + 1])}
    return {name: jnp.asarray(value) for name, value in p.items()}


def make_case(request):
    """The call to measure."""
    mlp, operation = request["layer"] == "ttt-mlp-t", request["operation"]
    base_rate, random = 0.1 if mlp else 1.0, np.random.default_rng(1)
    p = random_parameters(mlp, random)
    x, dy = (jnp.asarray(random.standard_normal((request["T"], WIDTH), np.float32)) for _ in range(2))

    def forward(p, x):
        return layer(p, x, base_rate=base_rate)

    if operation == "inner-forward":
        weights = [p[name] for name in ("W1", "b1", "W2", "b2") if name in p]
        inputs = inner_inputs(p, x, MINI_BATCH, base_rate)
        function, arguments = jax.jit(inner), (p, weights, *inputs)
    elif operation == "forward+backward":
        function = jax.jit(lambda p, x, dy: jax.vjp(forward, p, x)[1](dy))
        arguments = p, x, dy
    else:
        function, arguments = jax.jit(forward), (p, x)
    return lambda: jax.block_until_ready(function(*arguments))


def check(path):
    """Largest relative errors of output and gradients in double; True where all are small."""
    config, tensors = read_layer(path, "np")
    mlp = config["ttt_layer_type"] == "mlp"
    names = [name.removeprefix("grad.") for name in tensors if name.startswith("grad.")]
    p = {name: jnp.asarray(tensors[name]) for name in names}
    x = p.pop("input.hidden_states")

    def forward(p, x):
        return jax.vmap(lambda x: layer(p, x, config["mini_batch_size"], config["ttt_base_lr"]))(x)
    y, pull_back = jax.vjp(forward, p, x)
    gradients, dx = pull_back(jnp.asarray(tensors["probe"]))
    gradients["input.hidden_states"] = dx
    errors = {"output": relative_error(y, tensors["output"]),
              "gradients": largest_error((d, tensors["grad." + name]) for name, d in gradients.items())}
    return report(path, mlp, errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", metavar="FILE", help="compare our TTT layer with these values")
    parser.add_argument("--threads", type=int, default=1, help="of XLA (1)")
    options = parser.parse_args()
    start_jax(options.threads)
    if options.check:
        jax.config.update("jax_enable_x64", True)
        sys.exit(0 if all([check(path) for path in options.check]) else 1)
    peer_server.serve(options.threads, ["jax"], make_case)


if __name__ == "__main__":
    main()
