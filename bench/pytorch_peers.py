#!/usr/bin/env python3
"""The PyTorch side of compare_pytorch.py, which runs it with the Python of its virtual environment.

    pytorch_peers.py --check FILE...                 our TTT layer against reference values
    pytorch_peers.py --threads N [--official FILE]   measures what its standard input asks for (peer_server.py)

The TTT layer here is our own, written from the equations for speed in eager PyTorch: what does not
depend on the inner weights is computed for all mini-batches at once, the rest is a loop over
mini-batches with one batched product for all heads. The reference files (safetensors) hold one layer's
parameters under their names in the published checkpoints, `input.hidden_states`, `output`, `probe`, and
the gradients of sum(output * probe) as `grad.<name>`.
"""
import argparse
import importlib.util
import os
import sys
import types

import torch
from torch import nn
from torch.nn import functional as F

import peer_server
from reference_check import largest_error, read_layer, relative_error, report

WIDTH, HEADS, MINI_BATCH = 768, 12, 16
EPSILON = 1e-6
# torch.compile unrolls the loop over mini-batches, which takes minutes for more tokens than these;
# beyond them it is given the body of the loop.
WHOLE_TOKENS = 512


def rotary_angles(head_width, positions, theta=1e4):
    """[positions, head_width / 2]"""
    frequencies = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    return torch.arange(positions, dtype=torch.float64)[:, None] * frequencies


def loss_gradient(z, offset, gamma_squared):
    """dLoss/dz of 1/2 |gamma z_hat + beta - target|^2, z_hat = LayerNorm(z).

    offset: gamma (beta - target)."""
    shape = z.shape[-1:]
    z_hat, mean, inverse_std = torch.native_layer_norm(z, shape, None, None, EPSILON)
    d_z_hat = torch.addcmul(offset, z_hat, gamma_squared)
    return torch.ops.aten.native_layer_norm_backward(
        d_z_hat, z, shape, mean, inverse_std, None, None, [True, False, False])[0]


def inner_gradients(weights, k, offset, gamma_squared):
    """For each inner layer its input on the keys [G, n, in] and dLoss/d(its output) [G, n, out]."""
    z = torch.baddbmm(weights[1], k, weights[0])
    if len(weights) == 2:
        return [(k, loss_gradient(z, offset, gamma_squared))]
    hidden = F.gelu(z, approximate="tanh")
    d_out = loss_gradient(torch.baddbmm(weights[3], hidden, weights[2]), offset, gamma_squared)
    d_hidden = torch.bmm(d_out, weights[2].mT)
    return [(k, torch.ops.aten.gelu_backward(d_hidden, z, approximate="tanh")), (hidden, d_out)]


def learn_mini_batch(weights, q, k, offset, gamma_squared, eta, mixing):
    """The dual form on one mini-batch of n tokens, for G heads of all sequences: outputs on the
    queries before LayerNorm [G, n, f], and the weights after the mini-batch.

    eta: tril(tau_i lr_j) [G, n, n]; mixing: eta o (q k' + 1), known before the inner weights are."""
    last = eta[:, -1:]
    updated, z = [], q
    for i, (x, d_out) in enumerate(inner_gradients(weights, k, offset, gamma_squared)):
        W, b = weights[2 * i:2 * i + 2]
        if i > 0:
            z = F.gelu(z, approximate="tanh")
            mixing = torch.addcmul(eta, eta, torch.bmm(z, x.mT))
        z = torch.baddbmm(torch.baddbmm(b, z, W), mixing, d_out, alpha=-1)
        updated += [torch.baddbmm(W, x.mT * last, d_out, alpha=-1), torch.baddbmm(b, last, d_out, alpha=-1)]
    return z, updated


class TTT(nn.Module):
    """A TTT layer of the Transformer backbone: x [B, T, D] -> y [B, T, D]."""

    def __init__(self, mlp, width=WIDTH, heads=HEADS, mini_batch=MINI_BATCH, base_rate=None, theta=1e4):
        super().__init__()
        f = width // heads
        self.heads, self.head_width, self.mini_batch = heads, f, mini_batch
        self.base_rate = base_rate if base_rate is not None else (0.1 if mlp else 1.0)
        self.names = ["W1", "b1", "W2", "b2"] if mlp else ["W1", "b1"]
        widths = [f, 4 * f, f] if mlp else [f, f]
        for i in range(len(widths) - 1):
            self.register_parameter(f"W{i + 1}", nn.Parameter(0.02 * torch.randn(heads, widths[i], widths[i + 1])))
            self.register_parameter(f"b{i + 1}", nn.Parameter(torch.zeros(heads, 1, widths[i + 1])))
        self.learnable_token_idx = nn.Parameter(torch.zeros(mini_batch))
        self.learnable_ttt_lr_weight = nn.Parameter(0.02 * torch.randn(heads, 1, width))
        self.learnable_ttt_lr_bias = nn.Parameter(torch.zeros(heads, 1))
        self.ttt_norm_weight = nn.Parameter(torch.ones(heads, f))
        self.ttt_norm_bias = nn.Parameter(torch.zeros(heads, f))
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"]:
            projection = nn.Linear(width, width, bias=False)
            nn.init.normal_(projection.weight, std=0.02)
            self.add_module(name, projection)
        self.post_norm = nn.LayerNorm(width, EPSILON)
        angles = rotary_angles(f, mini_batch, theta)
        self.rotations = torch.polar(torch.ones_like(angles), angles).to(torch.get_default_dtype().to_complex())
        self.averages = 1 / torch.arange(1, mini_batch + 1, dtype=torch.get_default_dtype())
        self.learn_mini_batch = learn_mini_batch

    def tau(self):
        return (self.averages + self.learnable_token_idx).clamp_min(0)

    def split(self, x, n):
        """[B, N n, D] -> [N, B, n, H, f]: a view by mini-batches and heads, tokens before heads."""
        return x.unflatten(-1, (self.heads, -1)).unflatten(1, (-1, n)).transpose(0, 1)

    def by_head(self, x):
        """[N, B, n, H, f] -> [N, B H, n, f], contiguous."""
        return x.transpose(2, 3).flatten(1, 2).contiguous()

    def rotate(self, x, first=0):
        """[..., n, H, f], pairs of neighbours as complex numbers (ten times as fast as real ones here),
        at the positions first, first + 1, ... of the mini-batch."""
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.rotations[first:first + x.shape[-3], None]).flatten(-2)

    def rates(self, x):
        """lr [B, T, H]"""
        gate = F.linear(x, self.learnable_ttt_lr_weight[:, 0], self.learnable_ttt_lr_bias[:, 0])
        return torch.sigmoid(gate) * (self.base_rate / self.head_width)

    def norm(self, sequences):
        """gamma and beta of the inner LayerNorm [G, 1, f]."""
        return [p.repeat(sequences, 1)[:, None] for p in (self.ttt_norm_weight, self.ttt_norm_bias)]

    def inner_inputs(self, x, n):
        """q, k, v [N, G, n, f] and lr [N, G, 1, n] of N mini-batches of n tokens."""
        q, k = (self.by_head(self.rotate(self.split(p(x), n))) for p in (self.q_proj, self.k_proj))
        v = self.by_head(self.split(self.v_proj(x), n))
        rate = self.by_head(self.split(self.rates(x), n)).mT
        return q, k, v, rate

    def inner(self, q, k, v, rate, weights, sequences):
        """The inner loop over N mini-batches: outputs [N, G, n, f] and the weights after it."""
        gamma, beta = self.norm(sequences)
        eta = (self.tau()[:q.shape[-2], None] * rate).tril()
        mixing = torch.addcmul(eta, eta, q @ k.mT)
        offset = (beta + k - v) * gamma
        gamma_squared = gamma * gamma
        outputs = []
        for q_n, k_n, offset_n, eta_n, mixing_n in zip(*(a.unbind(0) for a in (q, k, offset, eta, mixing))):
            z, weights = self.learn_mini_batch(weights, q_n, k_n, offset_n, gamma_squared, eta_n, mixing_n)
            outputs.append(z)
        z_hat = F.layer_norm(torch.stack(outputs), (self.head_width,), eps=EPSILON)
        return torch.addcmul(q + beta, z_hat, gamma), weights

    def first_weights(self, sequences):
        return [getattr(self, name).repeat(sequences, 1, 1) for name in self.names]

    def forward(self, x):
        sequences, tokens, width = x.shape
        weights, parts = self.first_weights(sequences), []
        whole = tokens - tokens % self.mini_batch
        for piece, n in ((x[:, :whole], self.mini_batch), (x[:, whole:], tokens - whole)):
            if piece.shape[1] > 0:
                z, weights = self.inner(*self.inner_inputs(piece, n), weights, sequences)
                z = z.unflatten(1, (sequences, -1)).permute(1, 0, 3, 2, 4)
                parts.append(z.reshape(sequences, -1, width))
        return self.o_proj(self.post_norm(torch.cat(parts, 1) if len(parts) > 1 else parts[0]))

    def initial_state(self, sequences=1):
        weights = self.first_weights(sequences)
        return types.SimpleNamespace(weights=weights, sums=[torch.zeros_like(w) for w in weights], position=0,
                                     tau=self.tau().tolist(), norm=self.norm(sequences))

    def step(self, x, state):
        """One token of each sequence, x [B, 1, D]: the primal form, as it is for decoding."""
        position = state.position
        q, k = (self.by_head(self.rotate(self.split(p(x), 1), position))[0] for p in (self.q_proj, self.k_proj))
        v = self.by_head(self.split(self.v_proj(x), 1))[0]
        gamma, beta = state.norm
        rate = self.rates(x).view(-1, 1, 1)
        gradients = inner_gradients(state.weights, k, (beta + k - v) * gamma, gamma * gamma)
        z, weights = q, []
        for i, (a, d_out) in enumerate(gradients):
            d_out = rate * d_out
            state.sums[2 * i].baddbmm_(a.mT, d_out)
            state.sums[2 * i + 1].add_(d_out)
            W, b = (torch.sub(state.weights[j], state.sums[j], alpha=state.tau[position])
                    for j in (2 * i, 2 * i + 1))
            z = torch.baddbmm(b, F.gelu(z, approximate="tanh") if i > 0 else z, W)
            weights += [W, b]
        state.position = (position + 1) % self.mini_batch
        if state.position == 0:
            state.weights = weights
            for total in state.sums:
                total.zero_()
        z_hat = F.layer_norm(z, (self.head_width,), eps=EPSILON)
        z = torch.addcmul(q + beta, z_hat, gamma).view(len(x), 1, -1)
        return self.o_proj(self.post_norm(z))


class Attention(nn.Module):
    """Causal softmax attention with rotary positions, pairs half a head apart, as in Llama."""

    def __init__(self, tokens):
        super().__init__()
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"]:
            self.add_module(name, nn.Linear(WIDTH, WIDTH, bias=False))
        angles = rotary_angles(WIDTH // HEADS, tokens)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def rotate(self, x):
        """[B, H, T, f]"""
        a, b = x.chunk(2, -1)
        return torch.cat((a * self.cos - b * self.sin, b * self.cos + a * self.sin), -1)

    def forward(self, x):
        projections = self.q_proj, self.k_proj, self.v_proj
        q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in projections)
        z = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        return self.o_proj(z.transpose(1, 2).flatten(2))


def transformers_mamba():
    from transformers.models.mamba.modeling_mamba import MambaConfig, MambaMixer
    return MambaMixer(MambaConfig(hidden_size=WIDTH, num_hidden_layers=1, use_mambapy=False), layer_idx=0).eval()


def mambapy_mamba():
    from mambapy.mamba import MambaBlock, MambaConfig
    return MambaBlock(MambaConfig(d_model=WIDTH, n_layers=1))


class OfficialTTT:
    """The layer of the official PyTorch file, called as its own model calls it."""

    def __init__(self, path, mlp, tokens):
        self.file = load_file(path)
        config = self.file.TTTConfig(
            hidden_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=1, mini_batch_size=MINI_BATCH,
            ttt_layer_type="mlp" if mlp else "linear", ttt_base_lr=0.1 if mlp else 1.0)
        self.layer = (self.file.TTTMLP if mlp else self.file.TTTLinear)(config, layer_idx=0)
        block = types.SimpleNamespace(seq_modeling_block=self.layer)
        self.model = types.SimpleNamespace(config=config, layers=[block], device=torch.device("cpu"))
        self.positions = torch.arange(tokens)[None]

    def __call__(self, x):
        return self.layer(x, position_ids=self.positions)

    def parameters(self):
        return self.layer.parameters()

    def inner(self, tokens):
        """The inner loop on inputs that lie ready."""
        heads = {name: torch.randn(1, HEADS, tokens, WIDTH // HEADS) for name in ("XQ", "XK", "XV")}
        inputs = self.layer.get_ttt_inputs({**heads, "X": torch.randn(1, tokens, WIDTH)}, MINI_BATCH, None)
        return lambda: self.layer.ttt(inputs, MINI_BATCH, None, None)

    def stepper(self, x):
        cache = self.file.TTTCache(self.model, 1)

        def step():
            position = torch.tensor([[cache.seqlen_offset]])
            self.layer(x, position_ids=position, cache_params=cache)
            cache.seqlen_offset += 1
        return step


def load_file(path):
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location("official_ttt", path)
    if spec is None or not os.path.exists(path):
        raise FileNotFoundError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def make_layer(layer, peer, tokens, official):
    """The layer that `peer` has for our `layer`."""
    mlp = layer == "ttt-mlp-t"
    if peer == "official":
        return OfficialTTT(official, mlp, tokens)
    if layer.startswith("ttt"):
        ttt = TTT(mlp)
        if peer == "torch.compile" and tokens <= WHOLE_TOKENS:
            ttt.compile(dynamic=False)
        elif peer == "torch.compile":
            ttt.learn_mini_batch = torch.compile(learn_mini_batch, fullgraph=True, dynamic=False)
        return ttt
    return {"SDPA": lambda: Attention(tokens), "transformers": transformers_mamba, "mambapy": mambapy_mamba,
            "LSTM": lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True),
            "LSTMCell": lambda: nn.LSTMCell(WIDTH, WIDTH)}[peer]()


def make_step(layer, x):
    """A call without arguments that reads one more token, x [1, 1, D]."""
    if isinstance(layer, OfficialTTT):
        return layer.stepper(x)
    if isinstance(layer, TTT):
        state = layer.initial_state()
        return lambda: layer.step(x, state)
    state = None

    def step():
        nonlocal state
        if isinstance(layer, nn.LSTMCell):
            state = layer(x[0], state)
        else:
            state = layer(x, state)[1]
    return step


def make_inner(layer, x):
    """The inner loop alone, on queries, keys, values and rates that lie ready."""
    if isinstance(layer, OfficialTTT):
        return layer.inner(x.shape[1])
    inputs, weights = layer.inner_inputs(x, MINI_BATCH), layer.first_weights(1)
    return lambda: layer.inner(*inputs, weights, 1)


def make_backward(layer, x):
    """Forward and backward, to the input and all parameters."""
    x.requires_grad_()
    wanted, dy = [x, *layer.parameters()], torch.randn_like(x)

    def run():
        y = layer(x)
        torch.autograd.grad(y[0] if isinstance(y, tuple) else y, wanted, dy)
    return run


def make_case(request, official):
    """The call to measure."""
    torch.manual_seed(1)
    operation, tokens = request["operation"], request["T"]
    layer = make_layer(request["layer"], request["peer"], tokens, official)
    x = torch.randn(1, 1 if operation == "step" else tokens, WIDTH)
    if operation == "forward+backward":
        return make_backward(layer, x)
    with torch.inference_mode():
        if operation == "step":
            call = make_step(layer, x)
        else:
            call = make_inner(layer, x) if operation == "inner-forward" else lambda: layer(x)
    return torch.inference_mode()(call)


def check(path):
    """Largest relative errors of output, steps and gradients in double; True where all are small."""
    config, tensors = read_layer(path, "pt")
    mlp = config["ttt_layer_type"] == "mlp"
    layer = TTT(mlp, config["hidden_size"], config["num_attention_heads"], config["mini_batch_size"],
                config["ttt_base_lr"], config["rope_theta"])
    layer.load_state_dict({name: tensors[name] for name in layer.state_dict()})
    x = tensors["input.hidden_states"].requires_grad_()
    named = {"input.hidden_states": x, **dict(layer.named_parameters())}
    y = layer(x)
    gradients = torch.autograd.grad(y, list(named.values()), tensors["probe"])
    with torch.inference_mode():
        state = layer.initial_state(len(x))
        steps = torch.cat([layer.step(x[:, t:t + 1], state) for t in range(x.shape[1])], 1)
    errors = {"output": relative_error(y, tensors["output"]), "steps": relative_error(steps, tensors["output"]),
              "gradients": largest_error((d, tensors["grad." + name]) for d, name in zip(gradients, named))}
    return report(path, mlp, errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", metavar="FILE", help="compare our TTT layer with these values")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (1)")
    parser.add_argument("--official", metavar="FILE", help="ttt.py of the official implementation")
    options = parser.parse_args()
    if options.check:
        torch.set_default_dtype(torch.float64)
        sys.exit(0 if all([check(path) for path in options.check]) else 1)
    torch.set_num_threads(options.threads)
    peer_server.serve(options.threads, ["torch", "transformers", "mambapy"],
                      lambda request: make_case(request, options.official))


if __name__ == "__main__":
    main()
