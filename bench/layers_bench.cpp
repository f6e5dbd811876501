/// @file
/// Speed of whole layers, in float: forward, backward, step; the inner loop of TTT alone; and for
/// the baselines the least that a part of their work can take: `projections`, Mamba's products with
/// its weights over all tokens at once, and `recurrent-limit`, LSTM's recurrent weights read once a
/// token by one matrix-vector product, beside `input-product`, the rest of its products.
///
///   layers_bench [--quick | --full] [options of Google Benchmark]
///
/// Around one usual case (width 768, 12 heads, mini-batch 16, T 2048) each size is varied on its
/// own; --quick runs that case alone, --full every combination; baselines at T 512, 2048, 8192. Of
/// layers whose tokens cost the same in a text of any length, also the forward at T 32768.
/// Threads: 1 and OMP_NUM_THREADS.
/// Rates of one thread count processor time, those of several count real time.
/// bench/run.sh builds and runs it and makes a table of its output.
#include "support/layer_bench.hpp"
#include "support/program.hpp"
#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt::bench {
namespace {

struct Sizes {
  Index width = 768, heads = 12, mini_batch = 16, tokens = 2048;
};

enum class Extent { quick, usual, full };

std::vector<Sizes> sizes(Extent extent) {
  if (extent == Extent::quick) return {{}};
  if (extent == Extent::usual)
    return {{},
            {.tokens = 512},
            {.tokens = 8192},
            {.mini_batch = 8},
            {.mini_batch = 32},
            {.width = 256, .heads = 4},
            {.width = 1024, .heads = 16}};
  std::vector<Sizes> all;
  for (const Index heads : {4, 12, 16})
    for (const Index mini_batch : {8, 16, 32})
      for (const Index tokens : {512, 2048, 8192})
        all.push_back({64 * heads, heads, mini_batch, tokens});
  return all;
}

/// The inner loops of all heads on keys, queries, targets and rates that lie ready.
template <InnerModel M>
void measure_inner(benchmark::State& run, const TTTConfig& config, Index tokens) {
  const TTTLayer<float, M> layer(config);
  auto state = layer.initial_state();
  auto workspace = layer.workspace(tokens);
  TTTActivations<float>& a = workspace.activations;
  Random random(1);
  for (Matrix<float>* part : {&a.q, &a.k, &a.v}) random.fill_normal(*part, 0.5);
  a.rate.setConstant(static_cast<float>(config.base_learning_rate / (2.0 * config.head_width())));
  Vector<float> tau(config.mini_batch);
  InnerRate<float>::token_factors(Vector<float>::Zero(config.mini_batch), tau);
  std::vector<TTTPiece> pieces;
  append_pieces(0, 0, tokens, 0, config.mini_batch, pieces);
  const std::vector<Index> first_piece{0, std::ssize(pieces)};
  TTTState<float, M>* const states[] = {&state};
  for (auto _ : run) {
    TTTHeads<float, M>(config, layer.parameters())
        .forward(a, pieces, first_piece, tau, states, workspace, nullptr);
    benchmark::ClobberMemory();
  }
  report(run, a.z, tokens, inner_flops_per_token<M>(config).forward, state_bytes(state));
}

template <InnerModel M>
void register_ttt(const std::string& name, TTTConfig config, const Sizes& sizes) {
  config.width = sizes.width;
  config.heads = sizes.heads;
  config.mini_batch = sizes.mini_batch;
  for (const int threads : thread_counts()) {
    const Case c{name, sizes.width, sizes.heads, sizes.mini_batch, sizes.tokens, threads};
    register_layer<TTTLayer<float, M>>(c, config, flops_per_token<M>(config));
    if (!config.share_qk)  // the inner loop does not know the backbone
      register_case(c, "inner-forward",
                    [=](benchmark::State& run) { measure_inner<M>(run, config, sizes.tokens); });
  }
}

/// The products of `weights` with T tokens, one weight after the other.
void measure_products(benchmark::State& run, const std::vector<Matrix<float>>& weights,
                      Index tokens) {
  std::vector<Matrix<float>> x, y;
  Random random(1);
  double flops = 0;
  for (const auto& weight : weights) {
    random.fill_normal(x.emplace_back(weight.rows(), tokens), 1);
    y.emplace_back(weight.cols(), tokens);
    flops += 2 * static_cast<double>(weight.size());
  }
  for (auto _ : run) {
    for (std::size_t i = 0; i < weights.size(); ++i) Linear<float>::forward(x[i], weights[i], y[i]);
    benchmark::ClobberMemory();
  }
  report(run, y.back(), tokens, flops, 0);
}

/// One matrix-vector product with `weight` for each of T tokens.
void measure_matrix_vector(benchmark::State& run, const Matrix<float>& weight, Index tokens) {
  const Vector<float> h = Vector<float>::Constant(weight.rows(), 0.5f);
  Vector<float> a(weight.cols());
  for (auto _ : run) {
    for (Index t = 0; t < tokens; ++t) {
      a.noalias() = weight.transpose() * h;
      benchmark::DoNotOptimize(a.data());
    }
  }
  report(run, a, tokens, 2 * static_cast<double>(weight.size()), 0);
}

void register_mamba(const Sizes& sizes, int threads) {
  const MambaConfig config{.width = sizes.width};
  const Case c{"mamba", sizes.width, 0, 0, sizes.tokens, threads};
  register_layer<Mamba<float>>(c, config, flops_per_token(config));
  register_case(c, "projections", [=](benchmark::State& run) {
    const auto& p = subject<Mamba<float>>(c, config).layer.parameters();
    measure_products(run, {p.in_proj_weight, p.x_proj_weight, p.dt_proj_weight, p.out_proj_weight},
                     sizes.tokens);
  });
}

void register_attention(const Sizes& sizes, int threads) {
  const AttentionConfig config{.width = sizes.width, .heads = sizes.heads};
  register_layer<Attention<float>>(
      {"attention", sizes.width, sizes.heads, 0, sizes.tokens, threads}, config,
      flops_per_token(config, sizes.tokens));
}

void register_linear_attention(const Sizes& sizes, int threads) {
  const LinearAttentionConfig config{.width = sizes.width, .heads = sizes.heads};
  register_layer<LinearAttention<float>>(
      {"linear-attention", sizes.width, sizes.heads, 0, sizes.tokens, threads}, config,
      flops_per_token(config));
}

void register_lstm(const Sizes& sizes, int threads) {
  const LSTMConfig config{sizes.width};
  const Case c{"lstm", sizes.width, 0, 0, sizes.tokens, threads};
  register_layer<LSTM<float>>(c, config, flops_per_token(config));
  register_case(c, "input-product", [=](benchmark::State& run) {
    measure_products(run, {subject<LSTM<float>>(c, config).layer.parameters().weight_ih},
                     sizes.tokens);
  });
  if (threads == 1)
    register_case(c, "recurrent-limit", [=](benchmark::State& run) {
      measure_matrix_vector(run, subject<LSTM<float>>(c, config).layer.parameters().weight_hh,
                            sizes.tokens);
    });
}

void register_baselines(Extent extent) {
  for (const Index tokens :
       extent == Extent::quick ? std::vector<Index>{2048} : std::vector<Index>{2048, 512, 8192}) {
    for (const int threads : thread_counts()) {
      register_mamba({.tokens = tokens}, threads);
      register_attention({.tokens = tokens}, threads);
      register_linear_attention({.tokens = tokens}, threads);
      register_lstm({.tokens = tokens}, threads);
    }
  }
}

void register_long_texts(TTTConfig linear, TTTConfig mlp) {
  const auto [D, H, b, tokens] = Sizes{.tokens = 32768};
  for (TTTConfig* config : {&linear, &mlp}) {
    config->width = D;
    config->heads = H;
    config->mini_batch = b;
  }
  register_forward<TTTLinear<float>>({"ttt-linear", D, H, b, tokens}, linear,
                                     flops_per_token<LinearModel>(linear));
  register_forward<TTTMLP<float>>({"ttt-mlp", D, H, b, tokens}, mlp,
                                  flops_per_token<MLPModel>(mlp));
  const MambaConfig mamba{.width = D};
  register_forward<Mamba<float>>({"mamba", D, 0, 0, tokens}, mamba, flops_per_token(mamba));
  const LinearAttentionConfig attention{.width = D, .heads = H};
  register_forward<LinearAttention<float>>({"linear-attention", D, H, 0, tokens}, attention,
                                           flops_per_token(attention));
  const LSTMConfig lstm{D};
  register_forward<LSTM<float>>({"lstm", D, 0, 0, tokens}, lstm, flops_per_token(lstm));
}

/// `-t` is the Transformer backbone; without it the Mamba backbone of the paper's main results.
void register_all(Extent extent) {
  TTTConfig linear, mlp;
  mlp.base_learning_rate = 0.1;
  for (const Sizes& s : sizes(extent)) {
    register_ttt<LinearModel>("ttt-linear-t", linear, s);
    register_ttt<MLPModel>("ttt-mlp-t", mlp, s);
  }
  for (TTTConfig* config : {&linear, &mlp}) config->share_qk = config->gate = true;
  for (const Sizes& s : sizes(extent == Extent::full ? Extent::full : Extent::quick)) {
    register_ttt<LinearModel>("ttt-linear", linear, s);
    register_ttt<MLPModel>("ttt-mlp", mlp, s);
  }
  register_baselines(extent);
  if (extent != Extent::quick) register_long_texts(linear, mlp);
}

}  // namespace
}  // namespace ttt::bench

int main(int argc, char** argv) {
  using namespace ttt::bench;
  Program program(argc, argv);
  const bool quick = program.take_option("--quick"), full = program.take_option("--full");
  const Extent extent = full ? Extent::full : quick ? Extent::quick : Extent::usual;
  return program.run([&] { register_all(extent); });
}
