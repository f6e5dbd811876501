// Kinds ttt_causal_lm, ttt_decode and hf_causal_lm: whole language models.
#include "ttt/io/checkpoint.hpp"
#include "ttt/io/config.hpp"
#include "ttt/layers/attention.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "verification/verification.hpp"

namespace ttt::verification {
namespace {

LoadOptions model_options(TensorNames names) {
  return {.optional = {"grad.*", "logits*", "loss", "input_ids", "cache.*"}, .names = names};
}

template <class Layer>
class ModelCheck {
 public:
  using S = typename Layer::Scalar;
  using Model = LanguageModel<Layer>;
  using State = typename Model::State;
  using Tokens = typename Model::Tokens;

  explicit ModelCheck(ReferenceFile& reference)
      : reference_(reference),
        model_(language_model_config_from_json<Layer>(reference.config())),
        names_(tensor_names(reference.config())),
        ids_(reference.ids()),
        batch_(reference.size("input_ids", 0)),
        tokens_(reference.size("input_ids", 1)),
        workspace_(model_.workspace(tokens_)) {
    load_parameters(reference.file(), model_.parameters(), model_options(names_));
    for_each_tensor([&](const TensorInfo& info,
                        const auto&) { reference.use(checkpoint_name(names_, info.name)); },
                    model_.parameters());
  }

  Index tokens() const { return tokens_; }

  /// Logits of every position, each sequence cut into `sizes`; pieces of one token by `step`.
  Matrix<S> logits(const std::vector<Index>& sizes) {
    Matrix<S> all(model_.vocabulary(), batch_ * tokens_);
    for (Index s = 0; s < batch_; ++s) {
      State state = model_.initial_state();
      run_pieces(s, sizes, state, all);
    }
    return all;
  }

  void compare_logits(const std::string& name) {
    reference_.compare(name, logits({tokens_}));
    for (const std::uint64_t seed : {1, 2, 3})
      reference_.compare(name, logits(random_pieces(tokens_, seed)), "in pieces");
  }

  /// Mean cross entropy of predicting token t + 1 at t, and its gradient.
  void loss(const std::vector<Index>& sizes, std::string_view variant) {
    const double scale = 1.0 / static_cast<double>(batch_ * (tokens_ - 1));
    auto grad = zeros_like(model_.parameters());
    double sum = 0;
    for (Index s = 0; s < batch_; ++s) {
      const Tokens all = sequence(s);
      State state = model_.initial_state();
      std::vector<typename Model::Cache> caches(sizes.size());
      Index begin = 0;
      for (std::size_t i = 0; i < sizes.size(); begin += sizes[i++])
        sum += model_.loss(all.subspan(begin, sizes[i]), all.subspan(begin + 1, sizes[i]), state,
                           workspace_, caches[i]);
      State d_state = zeros_like(state);
      for (std::size_t i = sizes.size(); i-- > 0;)
        model_.backward(caches[i], scale, d_state, grad, workspace_);
      model_.backward_initial_state(d_state, grad);
    }
    const Matrix<S> mean = Matrix<S>::Constant(1, 1, static_cast<S>(sum * scale));
    reference_.compare("loss", mean, variant);
    reference_.compare_fields("grad.", grad, variant, names_);
  }

  /// Logits, loss and gradients, whole and in pieces.
  void whole_model() {
    compare_logits("logits");
    loss({tokens_ - 1}, {});
    for (const std::uint64_t seed : {1, 2, 3}) loss(random_pieces(tokens_ - 1, seed), "in pieces");
  }

  /// Prefill, then one token at a time; the official cache after the last token.
  void decode(Index prefill) {
    std::vector<Index> sizes(static_cast<std::size_t>(tokens_ - prefill + 1), 1);
    sizes[0] = prefill;
    if (prefill == 0) sizes.erase(sizes.begin());
    Matrix<S> all(model_.vocabulary(), batch_ * tokens_);
    std::vector<State> before, after;  // before and after the last token
    for (Index s = 0; s < batch_; ++s) {
      State state = model_.initial_state();
      run_pieces(s, {sizes.begin(), sizes.end() - 1}, state, all);
      before.push_back(state);
      Vector<S> last(model_.vocabulary());
      model_.step(sequence(s).back(), state, last, workspace_);
      all.col((s + 1) * tokens_ - 1) = last;
      after.push_back(state);
    }
    reference_.compare("logits.decode", all);
    if constexpr (requires { typename Layer::Inner; })
      for (Index i = 0; i < model_.config().trunk.depth; ++i) compare_cache(i, before, after);
  }

 private:
  Tokens sequence(Index s) const { return Tokens(ids_).subspan(s * tokens_, tokens_); }

  void run_pieces(Index s, const std::vector<Index>& sizes, State& state, Matrix<S>& all) {
    Index begin = 0;
    for (const Index size : sizes) {
      const Tokens piece = sequence(s).subspan(begin, size);
      if (size == 1)
        model_.step(piece[0], state, all.col(s * tokens_ + begin), workspace_);
      else
        model_.logits(piece, state, all.middleCols(s * tokens_ + begin, size), workspace_);
      begin += size;
    }
  }

  void compare_cache(Index layer, const std::vector<State>& before,
                     const std::vector<State>& after) {
    const std::string prefix = "cache.layers." + std::to_string(layer) + '.';
    const auto block = [layer](const State& state) -> const auto& {
      return state.layers[static_cast<std::size_t>(layer)];
    };
    const auto mixer = [&](const State& state) -> const auto& {
      return std::get<0>(block(state).mixer);
    };
    for (std::size_t l = 0; l < Layer::Inner::weight_count; ++l) {
      const std::string level = std::to_string(l + 1);
      const auto compare = [&](const std::string& name, const auto& part) {
        reference_.compare(prefix + name, side_by_side(after, part));
      };
      compare("W" + level + "_states", [&](const State& s) { return mixer(s).weights.W[l]; });
      compare("b" + level + "_states", [&](const State& s) { return mixer(s).weights.b[l]; });
      compare("W" + level + "_grad", [&](const State& s) { return mixer(s).carried.sums.W[l]; });
      compare("b" + level + "_grad", [&](const State& s) { return mixer(s).carried.sums.b[l]; });
    }
    const auto pre_conv = [&](const State& s) { return block(s).conv_tail; };
    const auto qk_conv = [&](const State& s) { return mixer(s).conv_tail; };
    reference_.compare(prefix + "pre_conv", last_inputs(before, after, pre_conv));
    reference_.compare(prefix + "ttt_conv_q", last_inputs(before, after, qk_conv));
    reference_.compare(prefix + "ttt_conv_k", last_inputs(before, after, qk_conv));
  }

  template <class Part>
  static Matrix<S> side_by_side(const std::vector<State>& states, const Part& part) {
    const Matrix<S> first = part(states[0]);
    Matrix<S> result(first.rows(), first.cols() * std::ssize(states));
    for (std::size_t s = 0; s < states.size(); ++s)
      result.middleCols(static_cast<Index>(s) * first.cols(), first.cols()) = part(states[s]);
    return result;
  }

  /// The last K inputs of a convolution, [K, D] for each sequence. A state keeps K - 1 of them, all
  /// that the next token needs; the oldest is still in the state before the last token.
  template <class Part>
  static Matrix<S> last_inputs(const std::vector<State>& before, const std::vector<State>& after,
                               const Part& tail) {
    const Index D = tail(after[0]).rows(), K = tail(after[0]).cols() + 1;
    if (D == 0 || K == 1) return {};
    Matrix<S> result(K, D * std::ssize(after));
    for (std::size_t s = 0; s < after.size(); ++s) {
      auto columns = result.middleCols(static_cast<Index>(s) * D, D);
      columns.row(0) = tail(before[s]).col(0).transpose();
      columns.bottomRows(K - 1) = tail(after[s]).transpose();
    }
    return result;
  }

  ReferenceFile& reference_;
  Model model_;
  TensorNames names_;
  std::vector<std::int32_t> ids_;
  Index batch_, tokens_;
  typename Model::Workspace workspace_;
};

/// Calls `body` with a check of the layer type that the file's configuration names.
template <class S, class Body>
void with_model(ReferenceFile& reference, const Body& body) {
  if (ttt_layer_type(reference.config()) == "linear") {
    ModelCheck<TTTLinear<S>> check(reference);
    body(check);
  } else if (reference.rounded_gelu()) {
    ModelCheck<TTTLayer<S, MLPModelRoundedGelu>> check(reference);
    body(check);
  } else {
    ModelCheck<TTTMLP<S>> check(reference);
    body(check);
  }
}

}  // namespace

template <class S>
void verify_language_model(ReferenceFile& reference) {
  with_model<S>(reference, [](auto& check) { check.whole_model(); });
}

template <class S>
void verify_decode(ReferenceFile& reference) {
  with_model<S>(reference, [&](auto& check) {
    check.compare_logits("logits.parallel");
    check.decode(reference.number("prefill_len"));
  });
}

template <class S>
void verify_hugging_face(ReferenceFile& reference) {
  const auto verify = [&](auto check) {
    check.whole_model();
    check.decode(reference.number("prefill_len"));
  };
  const std::string name = reference.text("class");
  if (name == "LlamaForCausalLM")
    verify(ModelCheck<Attention<S>>(reference));
  else if (name == "MambaForCausalLM")
    verify(ModelCheck<Mamba<S>>(reference));
  else
    throw Unsupported(reference.file().path() + ": class " + name + " is not supported");
}

#define TTT_INSTANTIATE(S)                                \
  template void verify_language_model<S>(ReferenceFile&); \
  template void verify_decode<S>(ReferenceFile&);         \
  template void verify_hugging_face<S>(ReferenceFile&);
TTT_INSTANTIATE(float)
TTT_INSTANTIATE(double)
#undef TTT_INSTANTIATE

}  // namespace ttt::verification
