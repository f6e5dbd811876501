/// @file
/// A causal language model: embedding, trunk, output head (tied to the embedding or its own).
///   logits_t = E' norm(trunk(E[:, id_0..t]))      loss = sum_t -log softmax(logits_t)[target_t]
/// Logits are made in tiles of tokens: those of a whole text are never held unless asked for.
/// Source: Sun et al. 2024 (arXiv 2407.04620) and the official TTTForCausalLM, whose names it has.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>

#include "ttt/lm/trunk.hpp"
#include "ttt/nn/cross_entropy.hpp"
#include "ttt/nn/embedding.hpp"

namespace ttt {

template <SequenceLayer... Mixers>
struct LanguageModelConfig {
  Index vocabulary = 256;  ///< 256: a model of bytes
  bool tie_embeddings = true;
  TrunkConfig<Mixers...> trunk;
};

template <SequenceLayer... Mixers>
class LanguageModel {
 public:
  using TrunkType = Trunk<Mixers...>;
  using Scalar = typename TrunkType::Scalar;
  using S = Scalar;
  using Config = LanguageModelConfig<Mixers...>;
  using Tokens = std::span<const std::int32_t>;
  using State = typename TrunkType::State;

  struct Parameters {
    Matrix<S> embedding;  // [D, V]
    TrunkType trunk;
    Matrix<S> head;  // [D, V]; empty when tied
    static auto fields(auto& self) {
      const bool tied = self.head.size() == 0;
      return std::tuple(streamed(field("model.embed_tokens.weight", self.embedding), tied),
                        field("model", self.trunk), streamed(field("lm_head.weight", self.head)));
    }
  };

  struct Workspace {
    typename TrunkType::Workspace trunk;
    Matrix<S> x, hidden;  // [D, T]
    Matrix<S> logits;     // [V, tile]
    Matrix<S> d_hidden;   // [D, T]
    Vector<S> nats;       // [tile]
    Vector<S> hidden_t;   // [D]
  };

  struct Cache {
    typename TrunkType::Cache trunk;
    std::vector<std::int32_t> ids, targets;
    Matrix<S> hidden;  // [D, T] after the final norm
  };

  explicit LanguageModel(const Config& config, Random&& random = Random(0))
      : LanguageModel(config, random) {}
  LanguageModel(const Config& config, Random& random)
      : config_(config),
        parameters_{Matrix<S>(config.trunk.block.width, config.vocabulary),
                    TrunkType(config.trunk, random), Matrix<S>()} {
    require(config.vocabulary > 0, "LanguageModelConfig: vocabulary is ", config.vocabulary,
            ", expected a positive number");
    random.fill_normal(parameters_.embedding, config.trunk.block.initializer_range);
    if (config.tie_embeddings) return;
    parameters_.head.resize(config.trunk.block.width, config.vocabulary);
    random.fill_normal(parameters_.head, config.trunk.block.initializer_range);
  }

  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  const TrunkType& trunk() const { return parameters_.trunk; }
  Index width() const { return trunk().width(); }
  Index vocabulary() const { return config_.vocabulary; }

  /// With room for `capacity` tokens where a mixer's memory grows: within it `step` allocates
  /// nothing.
  State initial_state(Index capacity = 0) const { return trunk().initial_state(capacity); }
  Workspace workspace(Index max_tokens) const {
    Workspace w;
    w.trunk = trunk().workspace(max_tokens);
    for (auto* matrix : {&w.x, &w.hidden}) matrix->resize(width(), max_tokens);
    w.hidden_t.resize(width());
    return w;
  }

  /// Reads `ids` and writes the logits of every position, [V, T]. Advances `state`.
  void logits(Tokens ids, State& state, MatrixOut<S> logits, Workspace& w,
              const RunOptions& options = {}) const {
    require_shape("LanguageModel.logits: logits", logits, vocabulary(), std::ssize(ids));
    run(ids, lengths_of(ids), pointer_to(state), w, nullptr, options);
    Product<S>::atb(head(), w.hidden, logits);
  }

  /// Reads a prompt; writes the logits after its last token, [V].
  void prefill(Tokens ids, State& state, VectorOut<S> last_logits, Workspace& w,
               const RunOptions& options = {}) const {
    require(!ids.empty(), "LanguageModel.prefill: no tokens, expected at least one");
    for (std::size_t begin = 0; begin < ids.size(); begin += prefill_tile) {
      const Tokens tile = ids.subspan(begin, std::min(prefill_tile, ids.size() - begin));
      run(tile, lengths_of(tile), pointer_to(state), w, nullptr, options);
    }
    Linear<S>::step(w.hidden.col(w.hidden.cols() - 1), head(), last_logits, options.decode_weights);
  }

  /// Reads a prompt of each of several streams, one after another in `ids`, none of them empty;
  /// writes the logits after the last token of each, [V, B].
  void prefill_batch(Tokens ids, Lengths lengths, States<State> states, MatrixOut<S> last_logits,
                     Workspace& w, const RunOptions& options = {}) const {
    const Index count = std::ssize(lengths);
    require_shape("LanguageModel.prefill_batch: last_logits", last_logits, vocabulary(), count);
    require(std::accumulate(lengths.begin(), lengths.end(), Index{0}) == std::ssize(ids),
            "LanguageModel.prefill_batch: the lengths do not sum to the ", ids.size(), " tokens");
    for (const Index length : lengths)
      require(length > 0, "LanguageModel.prefill_batch: a prompt of ", length,
              " tokens, expected at least one");
    // Tiles that hold a part of every prompt.
    const Index tile =
        std::max<Index>(1, static_cast<Index>(prefill_tile) / std::max<Index>(1, count));
    const Index longest = count > 0 ? *std::max_element(lengths.begin(), lengths.end()) : 0;
    std::vector<std::int32_t> part;
    std::vector<Index> sizes(lengths.size());
    for (Index read = 0; read < longest; read += tile) {
      part.clear();
      for (Index b = 0, begin = 0; b < count; begin += lengths[b++]) {
        sizes[b] = std::clamp<Index>(lengths[b] - read, 0, tile);
        const auto from = ids.begin() + begin + std::min(read, lengths[b]);
        part.insert(part.end(), from, from + sizes[b]);
      }
      run(part, sizes, states, w, nullptr, options);
      for (Index b = 0, end = 0; b < count; ++b) {
        end += sizes[b];
        if (sizes[b] > 0 && read + sizes[b] == lengths[b])
          Linear<S>::step(w.hidden.col(end - 1), head(), last_logits.col(b),
                          options.decode_weights);
      }
    }
  }

  /// Reads one token; writes the logits of the next, [V]. Allocates nothing, unless
  /// `options.decode_weights` has several threads.
  void step(std::int32_t id, State& state, VectorOut<S> logits, Workspace& w,
            const RunOptions& options = {}) const {
    Embedding<S>::step(id, parameters_.embedding, w.hidden_t);
    trunk().step(w.hidden_t, state, w.hidden_t, w.trunk, options);
    Linear<S>::step(w.hidden_t, head(), logits, options.decode_weights);
  }

  /// Reads one token of each of several streams; writes the logits of the next ones, [V, B].
  void step_batch(Tokens ids, States<State> states, MatrixOut<S> logits, Workspace& w,
                  const RunOptions& options = {}) const {
    require_shape("LanguageModel.step_batch: logits", logits, vocabulary(), std::ssize(ids));
    run(ids, std::vector<Index>(ids.size(), 1), states, w, nullptr, options);
    Product<S>::atb(head(), w.hidden, logits);
  }

  /// Sum over all tokens of the nats of predicting targets[t] after ids[0..t]. With `nats` [T], the
  /// nats of each token. Sequences stand one after another in ids and targets.
  double loss_batch(Tokens ids, Tokens targets, Lengths lengths, States<State> states, Workspace& w,
                    Cache* cache, const RunOptions& options = {}, std::span<S> nats = {}) const {
    require(ids.size() == targets.size(), "LanguageModel.loss: ", ids.size(), " ids and ",
            targets.size(), " targets, expected as many");
    require(nats.empty() || nats.size() == ids.size(), "LanguageModel.loss: room for ", nats.size(),
            " nats, expected ", ids.size());
    run(ids, lengths, states, w, cache ? &cache->trunk : nullptr, options);
    if (cache) {
      cache->ids.assign(ids.begin(), ids.end());
      cache->targets.assign(targets.begin(), targets.end());
      cache->hidden = w.hidden;
    }
    double sum = 0;
    for_each_tile(std::ssize(ids), [&](Index begin, Index size) {
      sum += tile_loss(w.hidden, targets, begin, size, w);
      for (Index t = 0; t < size && !nats.empty(); ++t) nats[begin + t] = w.nats[t];
    });
    return sum;
  }

  double loss(Tokens ids, Tokens targets, State& state, Workspace& w,
              const RunOptions& options = {}, std::span<S> nats = {}) const {
    return loss_batch(ids, targets, lengths_of(ids), pointer_to(state), w, nullptr, options, nats);
  }
  double loss(Tokens ids, Tokens targets, State& state, Workspace& w, Cache& cache,
              const RunOptions& options = {}) const {
    return loss_batch(ids, targets, lengths_of(ids), pointer_to(state), w, &cache, options);
  }

  /// Adds `scale` times the gradient of the summed nats into `grad`; d_states as in
  /// `SequenceLayer.backward`.
  void backward_batch(const Cache& cache, double scale, States<State> d_states, Parameters& grad,
                      Workspace& w) const {
    require_shape("LanguageModel.backward: the cache's hidden", cache.hidden, width(),
                  std::ssize(cache.ids));
    ensure_shape(w.d_hidden, width(), std::ssize(cache.ids));
    for_each_tile(std::ssize(cache.ids), [&](Index begin, Index size) {
      tile_logits(cache.hidden.middleCols(begin, size), w);
      head_backward(cache.hidden, Tokens(cache.targets), begin, size, scale, grad, w);
    });
    trunk_backward(cache, d_states, grad, w);
  }

  /// `loss_batch` and `backward_batch` at once, with no loss beyond these tokens: each tile of
  /// logits is made once instead of twice. Returns the summed nats, and adds `scale` times their
  /// gradient into `grad`; `states` are those before in, adjoints of these out.
  double loss_and_gradient_batch(Tokens ids, Tokens targets, Lengths lengths, States<State> states,
                                 double scale, Parameters& grad, Workspace& w, Cache& cache,
                                 const RunOptions& options = {}) const {
    require(ids.size() == targets.size(), "LanguageModel.loss: ", ids.size(), " ids and ",
            targets.size(), " targets, expected as many");
    run(ids, lengths, states, w, &cache.trunk, options);
    cache.ids.assign(ids.begin(), ids.end());
    cache.targets.clear();
    cache.hidden.resize(width(), 0);  // nothing is left for `backward_batch`
    ensure_shape(w.d_hidden, width(), std::ssize(ids));
    double sum = 0;
    for_each_tile(std::ssize(ids), [&](Index begin, Index size) {
      sum += tile_loss(w.hidden, targets, begin, size, w);
      head_backward(w.hidden, targets, begin, size, scale, grad, w);
    });
    for (State* state : states) set_zero(*state);
    trunk_backward(cache, states, grad, w);
    return sum;
  }

  void backward(const Cache& cache, double scale, State& d_state, Parameters& grad,
                Workspace& w) const {
    backward_batch(cache, scale, pointer_to(d_state), grad, w);
  }

  void backward_initial_state(const State& d_state, Parameters& grad) const {
    trunk().backward_initial_state(d_state, grad.trunk.parameters());
  }

 private:
  static constexpr std::size_t prefill_tile = 1024;

  /// One sequence of all ids, for the calls of a single stream.
  struct OneLength {
    Index length;
    operator Lengths() const { return Lengths(&length, 1); }
  };
  struct OneState {
    State* state;
    operator States<State>() const { return States<State>(&state, 1); }
  };
  static OneLength lengths_of(Tokens ids) { return {std::ssize(ids)}; }
  static OneState pointer_to(State& state) { return {&state}; }

  const Matrix<S>& head() const {
    return config_.tie_embeddings ? parameters_.embedding : parameters_.head;
  }

  void run(Tokens ids, Lengths lengths, States<State> states, Workspace& w,
           typename TrunkType::Cache* cache, const RunOptions& options) const {
    ensure_shape(w.x, width(), std::ssize(ids));
    ensure_shape(w.hidden, width(), std::ssize(ids));
    Embedding<S>::forward(ids, parameters_.embedding, w.x);
    trunk().forward_batch(w.x, lengths, states, w.hidden, w.trunk, cache, options);
  }

  void tile_logits(MatrixIn<S> hidden, Workspace& w) const {
    ensure_shape(w.logits, vocabulary(), hidden.cols());
    Product<S>::atb(head(), hidden, w.logits);
  }

  /// Leaves the tile's logits in w.logits and their nats in w.nats; returns the sum of these.
  double tile_loss(MatrixIn<S> hidden, Tokens targets, Index begin, Index size,
                   Workspace& w) const {
    tile_logits(hidden.middleCols(begin, size), w);
    w.nats.resize(size);
    CrossEntropy<S>::forward(w.logits, targets.subspan(begin, size), w.nats);
    return w.nats.template cast<double>().sum();
  }

  /// From the tile's logits in w.logits: its part of w.d_hidden, and of the head's gradient.
  void head_backward(MatrixIn<S> hidden, Tokens targets, Index begin, Index size, double scale,
                     Parameters& grad, Workspace& w) const {
    CrossEntropy<S>::backward_in_place(w.logits, targets.subspan(begin, size), scale);
    Product<S>::ab(head(), w.logits, w.d_hidden.middleCols(begin, size));
    Product<S>::add_abt(hidden.middleCols(begin, size), w.logits,
                        config_.tie_embeddings ? grad.embedding : grad.head);
  }

  void trunk_backward(const Cache& cache, States<State> d_states, Parameters& grad,
                      Workspace& w) const {
    trunk().backward_batch(w.d_hidden, cache.trunk, d_states, w.d_hidden, grad.trunk.parameters(),
                           w.trunk);
    Embedding<S>::backward(w.d_hidden, cache.ids, grad.embedding);
  }

  template <class Body>
  static void for_each_tile(Index tokens, Body&& body) {
    constexpr Index tile = CrossEntropy<S>::tile_tokens;
    for (Index begin = 0; begin < tokens; begin += tile)
      body(begin, std::min(tile, tokens - begin));
  }

  Config config_;
  Parameters parameters_;
};

}  // namespace ttt
