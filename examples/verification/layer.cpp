// Kind ttt_layer: one TTT layer, its intermediate values and every gradient.
#include "ttt/io/checkpoint.hpp"
#include "ttt/io/config.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "verification/verification.hpp"

namespace ttt::verification {
namespace {

const LoadOptions layer_options{.optional = {"grad.*", "mid.*", "input.*", "output", "probe"}};

template <class Layer>
class LayerCheck {
 public:
  using S = typename Layer::Scalar;
  using M = typename Layer::Inner;
  using State = typename Layer::State;
  using Cache = typename Layer::Cache;

  explicit LayerCheck(ReferenceFile& reference)
      : reference_(reference),
        layer_(layer_config_from_json<TTTConfig>(reference.config())),
        x_(reference.input<S>("input.hidden_states")),
        probe_(reference.input<S>("probe")),
        batch_(reference.size("input.hidden_states", 0)),
        tokens_(reference.size("input.hidden_states", 1)),
        workspace_(layer_.workspace(x_.cols())) {
    load_parameters(reference.file(), layer_.parameters(), layer_options);
    for_each_tensor([&](const TensorInfo& info, const auto&) { reference.use(info.name); },
                    layer_.parameters());
  }

  /// All sequences as one batch.
  void whole() {
    std::vector<State> states(static_cast<std::size_t>(batch_), layer_.initial_state());
    std::vector<State*> pointers;
    for (State& state : states) pointers.push_back(&state);
    const std::vector<Index> lengths(states.size(), tokens_);
    Matrix<S> y(x_.rows(), x_.cols()), dx(x_.rows(), x_.cols());
    Cache cache;
    layer_.forward_batch(x_, lengths, pointers, y, workspace_, &cache);
    reference_.compare("output", y);
    compare_intermediate_values(cache, states);

    auto grad = zeros_like(layer_.parameters());
    for (State& state : states) set_zero(state);  // from here on the adjoints
    layer_.backward_batch(probe_, cache, pointers, dx, grad, workspace_);
    for (const State& state : states) layer_.backward_initial_state(state, grad);
    reference_.compare("grad.input.hidden_states", dx);
    reference_.compare_fields("grad.", grad);
  }

  /// Each sequence cut at random; outputs of single tokens from `step`.
  void pieces(std::uint64_t seed) {
    Matrix<S> y(x_.rows(), x_.cols()), stepped = y, dx = y;
    auto grad = zeros_like(layer_.parameters());
    for (Index begin = 0; begin < x_.cols(); begin += tokens_)
      sequence_in_pieces(begin, random_pieces(tokens_, seed), y, stepped, dx, grad);
    reference_.compare("output", y, "in pieces");
    reference_.compare("output", stepped, "in pieces and steps");
    reference_.compare("grad.input.hidden_states", dx, "in pieces");
    reference_.compare_fields("grad.", grad, "in pieces");
  }

 private:
  void sequence_in_pieces(Index begin, const std::vector<Index>& sizes, Matrix<S>& y,
                          Matrix<S>& stepped, Matrix<S>& dx, typename Layer::Parameters& grad) {
    State state = layer_.initial_state(), step_state = state;
    std::vector<Cache> caches(sizes.size());
    for (std::size_t i = 0; i < sizes.size(); begin += sizes[i++]) {
      const auto x = x_.middleCols(begin, sizes[i]);
      layer_.forward(x, state, y.middleCols(begin, sizes[i]), workspace_, caches[i]);
      if (sizes[i] > 1)
        layer_.forward(x, step_state, stepped.middleCols(begin, sizes[i]), workspace_);
      else
        layer_.step(x.col(0), step_state, stepped.col(begin), workspace_);
    }
    State d_state = zeros_like(state);
    for (std::size_t i = sizes.size(); i-- > 0;) {
      begin -= sizes[i];
      layer_.backward(probe_.middleCols(begin, sizes[i]), caches[i], d_state,
                      dx.middleCols(begin, sizes[i]), grad, workspace_);
    }
    layer_.backward_initial_state(d_state, grad);
  }

  void compare_intermediate_values(const Cache& cache, const std::vector<State>& states) {
    const auto& a = cache.activations;
    reference_.compare("mid.XQ", by_head(a.q));
    reference_.compare("mid.XK", by_head(a.k));
    reference_.compare("mid.XV", by_head(a.v));
    Matrix<S> rate(tokens_, batch_ * layer_.config().heads);
    for (Index i = 0; i < rate.cols(); ++i)
      rate.col(i) = a.rate.row(i % layer_.config().heads)
                        .segment(i / layer_.config().heads * tokens_, tokens_)
                        .transpose();
    reference_.compare("mid.ttt_lr_eta", rate);
    reference_.compare("mid.token_eta",
                       Matrix<S>(cache.tau.head(std::min(cache.tau.size(), tokens_))));
    reference_.compare("mid.ttt_output", a.z);
    compare_final_weights(cache, states);
  }

  /// mid.final: the inner weights after the last token, those of an unfinished mini-batch included.
  void compare_final_weights(const Cache& cache, const std::vector<State>& states) {
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      const auto& W_0 = layer_.parameters().W_0;
      Matrix<S> W(W_0.W[l].rows(), batch_ * W_0.W[l].cols());
      Matrix<S> b(W_0.b[l].rows(), batch_ * W_0.b[l].cols());
      for (Index s = 0; s < batch_; ++s) {
        const State& state = states[static_cast<std::size_t>(s)];
        const S tau = state.position > 0 ? cache.tau[state.position - 1] : S(0);
        W.middleCols(s * W_0.W[l].cols(), W_0.W[l].cols()) =
            state.weights.W[l] - tau * state.carried.sums.W[l];
        b.middleCols(s * W_0.b[l].cols(), W_0.b[l].cols()) =
            state.weights.b[l] - tau * state.carried.sums.b[l];
      }
      reference_.compare("mid.final.W" + std::to_string(l + 1), W);
      reference_.compare("mid.final.b" + std::to_string(l + 1), b);
    }
  }

  /// [D, B T] to the file's [B, H, T, f].
  Matrix<S> by_head(const Matrix<S>& x) const {
    const Index heads = layer_.config().heads, f = layer_.config().head_width();
    Matrix<S> result(f, batch_ * heads * tokens_);
    for (Index s = 0; s < batch_; ++s)
      for (Index h = 0; h < heads; ++h)
        result.middleCols((s * heads + h) * tokens_, tokens_) =
            x.block(h * f, s * tokens_, f, tokens_);
    return result;
  }

  ReferenceFile& reference_;
  Layer layer_;
  Matrix<S> x_, probe_;
  Index batch_, tokens_;
  typename Layer::Workspace workspace_;
};

template <class Layer>
void check_layer(ReferenceFile& reference) {
  LayerCheck<Layer> check(reference);
  check.whole();
  for (const std::uint64_t seed : {1, 2, 3}) check.pieces(seed);
}

}  // namespace

template <class S>
void verify_layer(ReferenceFile& reference) {
  if (ttt_layer_type(reference.config()) == "linear")
    check_layer<TTTLinear<S>>(reference);
  else if (reference.rounded_gelu())
    check_layer<TTTLayer<S, MLPModelRoundedGelu>>(reference);
  else
    check_layer<TTTMLP<S>>(reference);
}

template void verify_layer<float>(ReferenceFile&);
template void verify_layer<double>(ReferenceFile&);

}  // namespace ttt::verification
