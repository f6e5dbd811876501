// Kinds ttt_inner_loop, theorem1, theorem2 and deltanet: the inner loop without a layer around it.
#include "ttt/inner/inner_loop.hpp"
#include "ttt/core/random.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/mlp_model.hpp"
#include "ttt/inner/nadaraya_watson.hpp"
#include "ttt/layers/ttt_heads.hpp"
#include "verification/verification.hpp"

namespace ttt::verification {
namespace {

/// `[B, H, T, f]` as files have it (columns b, h, t) to a layer's `[H f, B T]`, and back.
template <class S>
Matrix<S> to_layer(const Matrix<S>& file, Index batch, Index heads) {
  const Index f = file.rows(), T = file.cols() / (batch * heads);
  Matrix<S> layer(heads * f, batch * T);
  for (Index b = 0; b < batch; ++b)
    for (Index h = 0; h < heads; ++h)
      layer.block(h * f, b * T, f, T) = file.middleCols((b * heads + h) * T, T);
  return layer;
}

template <class S>
Matrix<S> to_file(const Matrix<S>& layer, Index batch, Index heads) {
  const Index f = layer.rows() / heads, T = layer.cols() / batch;
  Matrix<S> file(f, batch * heads * T);
  for (Index b = 0; b < batch; ++b)
    for (Index h = 0; h < heads; ++h)
      file.middleCols((b * heads + h) * T, T) = layer.block(h * f, b * T, f, T);
  return file;
}

/// The inner loops of all heads and sequences of one file.
template <class S, InnerModel M>
class InnerLoopCheck {
 public:
  explicit InnerLoopCheck(ReferenceFile& reference) : reference_(reference) {
    batch_ = reference.size("input.XQ", 0);
    heads_ = reference.size("input.XQ", 1);
    tokens_ = reference.size("input.XQ", 2);
    config_.heads = heads_;
    config_.width = heads_ * reference.size("input.XQ", 3);
    tau_ = reference.input<S>("input.tau");
    config_.mini_batch = tau_.size();
    parameters_.W_0 = InnerWeights<S, M>::zero(heads_, config_.head_width());
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      const std::string level = std::to_string(l + 1);
      parameters_.W_0.W[l] = reference.input<S>("input.W" + level);
      parameters_.W_0.b[l] = reference.input<S>("input.b" + level);
    }
    parameters_.norm_weight = reference.input<S>("input.ttt_norm_weight");
    parameters_.norm_bias = reference.input<S>("input.ttt_norm_bias");
    a_.q = to_layer(reference.input<S>("input.XQ"), batch_, heads_);
    a_.k = to_layer(reference.input<S>("input.XK"), batch_, heads_);
    a_.v = to_layer(reference.input<S>("input.XV"), batch_, heads_);
    a_.rate =
        to_layer(Matrix<S>(reference.input<S>("input.lr").reshaped(1, batch_ * heads_ * tokens_)),
                 batch_, heads_);
    a_.z.resize(config_.width, batch_ * tokens_);
  }

  /// Dual form over pieces of at most `pieces[i]` tokens. `name`: where the outputs are stored.
  void dual_form(const std::string& name, const std::vector<Index>& pieces,
                 std::string_view variant, bool compare_weights) {
    std::vector<TTTState<S, M>> states(static_cast<std::size_t>(batch_),
                                       {0, parameters_.W_0, {zeros_like(parameters_.W_0)}, {}});
    TTTWorkspace<S, M> workspace(config_.width, heads_);
    const TTTHeads<S, M> heads(config_, parameters_);
    for (Index b = 0; b < batch_; ++b) {
      auto& state = states[static_cast<std::size_t>(b)];
      TTTState<S, M>* const pointer = &state;
      Index begin = b * tokens_;
      for (const Index size : pieces) {
        std::vector<TTTPiece> plan;
        append_pieces(0, begin, size, state.position, config_.mini_batch, plan);
        heads.forward(a_, plan, {0, std::ssize(plan)}, tau_, States<TTTState<S, M>>(&pointer, 1),
                      workspace, nullptr);
        state.position = (state.position + size) % config_.mini_batch;
        begin += size;
      }
    }
    reference_.compare(name, to_file(a_.z, batch_, heads_), variant);
    if (compare_weights) compare_final_weights(states, variant);
  }

  /// Loss and explicit gradient of every token at the weights of its mini-batch's start.
  void tokens() {
    using Loop = InnerLoop<S, M>;
    Matrix<S> loss(tokens_, batch_ * heads_);
    InnerWeights<S, M> G =
        InnerWeights<S, M>::zero(batch_ * heads_ * tokens_, config_.head_width());
    for (Index b = 0; b < batch_; ++b) {
      for (Index h = 0; h < heads_; ++h) {
        InnerWeights<S, M> W = InnerWeights<S, M>::zero(1, config_.head_width());
        copy_weights(parameters_.W_0.head(h), W.head(0));
        for (Index begin = 0; begin < tokens_; begin += config_.mini_batch) {
          const Index n = std::min(config_.mini_batch, tokens_ - begin);
          const Index f = config_.head_width();
          const auto block = [&](Matrix<S>& x) {
            return x.block(h * f, b * tokens_ + begin, f, n);
          };
          for (Index t = 0; t < n; ++t) {
            const Index column = (b * heads_ + h) * tokens_ + begin + t;
            loss(begin + t, b * heads_ + h) =
                Loop::loss(std::as_const(W).head(0), parameters_.norm(h), block(a_.k).col(t),
                           block(a_.v).col(t));
            Loop::gradient(std::as_const(W).head(0), parameters_.norm(h), block(a_.k).col(t),
                           block(a_.v).col(t), G.head(column));
          }
          const Matrix<S> E =
              a_.rate.row(h).segment(b * tokens_ + begin, n).transpose() * tau_.head(n).transpose();
          Matrix<S> O(f, n);
          Loop::primal_form(W.head(0), parameters_.norm(h), block(a_.k), block(a_.q), block(a_.v),
                            E, O);
          block(a_.z) = O;
        }
      }
    }
    reference_.compare("output.Z", to_file(a_.z, batch_, heads_), "primal form");
    reference_.compare("output.inner_loss", loss);
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      reference_.compare("output.G.W" + std::to_string(l + 1), G.W[l]);
      reference_.compare("output.G.b" + std::to_string(l + 1), G.b[l]);
    }
  }

  Index token_count() const { return tokens_; }

 private:
  /// The weights after the last token: those at the border moved by the unfinished mini-batch.
  void compare_final_weights(std::vector<TTTState<S, M>>& states, std::string_view variant) {
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      Matrix<S> W(states[0].weights.W[l].rows(), 0), B(states[0].weights.b[l].rows(), 0);
      for (const auto& state : states) {
        const S tau = state.position > 0 ? tau_[state.position - 1] : S(0);
        W.conservativeResize(Eigen::NoChange, W.cols() + state.weights.W[l].cols());
        B.conservativeResize(Eigen::NoChange, B.cols() + state.weights.b[l].cols());
        W.rightCols(state.weights.W[l].cols()) = state.weights.W[l] - tau * state.carried.sums.W[l];
        B.rightCols(state.weights.b[l].cols()) = state.weights.b[l] - tau * state.carried.sums.b[l];
      }
      reference_.compare("output.W_final.W" + std::to_string(l + 1), W, variant);
      reference_.compare("output.W_final.b" + std::to_string(l + 1), B, variant);
    }
  }

  ReferenceFile& reference_;
  TTTConfig config_;
  TTTParameters<S, M> parameters_;
  TTTActivations<S> a_;
  Vector<S> tau_;
  Index batch_ = 0, heads_ = 0, tokens_ = 0;
};

template <class S, InnerModel M>
void verify_inner_model(ReferenceFile& reference, const std::string& output, bool exact) {
  InnerLoopCheck<S, M> check(reference);
  check.dual_form(output, {check.token_count()}, "dual form", exact);
  for (const std::uint64_t seed : {1, 2, 3})
    check.dual_form(output, random_pieces(check.token_count(), seed), "in pieces", exact);
  if (exact) check.tokens();
}

/// A linear learner z = W k with loss 1/2 |W k - v|^2, for each of the [B, H] sequences of a file.
template <class S>
struct LinearLearner {
  using M = PlainStack<LinearMap<>>;
  Matrix<S> K, Q, V;  // [f, B H T]
  Index T, sequences;

  explicit LinearLearner(ReferenceFile& reference)
      : K(reference.input<S>("input.K")),
        Q(reference.input<S>("input.Q")),
        V(reference.input<S>("input.V")),
        T(reference.size("input.K", 2)),
        sequences(K.cols() / T) {}

  /// Runs chunks of `chunk` tokens; `E(s, t)` within the chunk from `rates`. W [f, f H B] in place.
  Matrix<S> run(Matrix<S>& W, const Matrix<S>& rates, Index chunk, bool dual) const {
    const Index f = K.rows();
    Matrix<S> Z(f, K.cols());
    typename DualForm<S, M>::Trace trace;
    for (Index sequence = 0; sequence < sequences; ++sequence) {
      InnerWeights<S, M> weights = InnerWeights<S, M>::zero(1, f);
      weights.W[0] = W.middleCols(sequence * f, f);
      for (Index begin = sequence * T; begin < (sequence + 1) * T; begin += chunk) {
        const Index n = std::min(chunk, (sequence + 1) * T - begin);
        const Vector<S> rate = rates.reshaped().segment(begin, n);
        const Matrix<S> E = rate * Vector<S>::Ones(n).transpose();
        const auto part = [&](const Matrix<S>& x) { return x.middleCols(begin, n); };
        const HeadNorm<S> no_norm{{nullptr, 0}, {nullptr, 0}};
        if (dual) {
          DualForm<S, M>::forward(
              {std::as_const(weights).head(0), true, {}, no_norm, part(K), part(Q), part(V), E},
              Z.middleCols(begin, n), trace);
          DualForm<S, M>::carry(trace, part(K), -rate, weights.head(0));
        } else {
          InnerLoop<S, M>::primal_form(weights.head(0), no_norm, part(K), part(Q), part(V), E,
                                       Z.middleCols(begin, n));
        }
      }
      W.middleCols(sequence * f, f) = weights.W[0];
    }
    return Z;
  }
};

/// What a linear learner's file stores: outputs of the learner and of the equivalent closed form.
template <class S>
void compare_linear_learner(ReferenceFile& reference, const Matrix<S>& W_0, const Matrix<S>& rates,
                            Index chunk, const std::string& closed_form) {
  const LinearLearner<S> learner(reference);
  for (const bool dual : {true, false}) {
    Matrix<S> W = W_0;
    const Matrix<S> Z = learner.run(W, rates, chunk, dual);
    const char* variant = dual ? "dual form" : "primal form";
    reference.compare("output.ttt", Z, variant);
    reference.compare("output." + closed_form, Z, variant);
    reference.compare("output.W_final", W, variant);
  }
}

}  // namespace

template <class S>
void verify_inner_loop(ReferenceFile& reference) {
  const std::string type = reference.text("ttt_layer_type");
  if (type == "linear") {
    verify_inner_model<S, LinearModel>(reference, "output.Z", true);
  } else if (type == "mlp") {
    verify_inner_model<S, MLPModel>(reference, "output.Z", true);
    verify_inner_model<S, MLPModelRoundedGelu>(reference, "output.Z_rounded_gelu_constants", false);
  } else {
    throw Unsupported(reference.file().path() + ": inner model '" + type + "' is not supported");
  }
}

/// Theorem 1: zero start, loss |W k - v|^2, step 1/2, all gradients at the start: linear attention.
template <class S>
void verify_theorem1(ReferenceFile& reference) {
  const LinearLearner<S> learner(reference);
  const Index f = learner.K.rows();
  compare_linear_learner<S>(reference, Matrix<S>::Zero(f, f * learner.sequences),
                            Matrix<S>::Ones(1, learner.K.cols()), learner.T, "linear_attention");
}

template <class S>
void verify_theorem2(ReferenceFile& reference) {
  const LinearLearner<S> inputs(reference);
  Matrix<S> Z(inputs.V.rows(), inputs.V.cols());
  for (Index s = 0; s < inputs.sequences; ++s) {
    const auto part = [&](const Matrix<S>& x) { return x.middleCols(s * inputs.T, inputs.T); };
    nadaraya_watson<S>(part(inputs.K), part(inputs.Q), part(inputs.V),
                       Z.middleCols(s * inputs.T, inputs.T));
  }
  reference.compare("output.nadaraya_watson", Z);
  reference.compare("output.softmax_attention", Z);
}

/// One step per token with rate beta: the delta rule.
template <class S>
void verify_deltanet(ReferenceFile& reference) {
  const Matrix<S> W_0 = reference.input<S>("input.W0");  // [f, f H], shared by the batch
  const Index batch = reference.size("input.K", 0);
  compare_linear_learner<S>(reference, W_0.replicate(1, batch), reference.input<S>("input.beta"), 1,
                            "deltanet");
}

#define TTT_INSTANTIATE(S)                            \
  template void verify_inner_loop<S>(ReferenceFile&); \
  template void verify_theorem1<S>(ReferenceFile&);   \
  template void verify_theorem2<S>(ReferenceFile&);   \
  template void verify_deltanet<S>(ReferenceFile&);
TTT_INSTANTIATE(float)
TTT_INSTANTIATE(double)
#undef TTT_INSTANTIATE

}  // namespace ttt::verification
