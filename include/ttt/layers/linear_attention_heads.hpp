/// @file
/// The heads of linear attention, in chunks of c tokens. With Q, K the features of a chunk's
/// queries and keys and M, n the state before it,
///   A = K'Q on and above the diagonal, 0 below
///   Y = M Q + V A      d = n'Q + 1'A + epsilon      z_t = y_t / d_t, or y_t where not normalized
///   M <- M + V K'      n <- n + K 1
/// which is the loop over tokens in products: 4 f (f + c) operations a token and head instead of
/// 4 f^2, and backward meets states at the borders of chunks alone.
#pragma once

#include <limits>
#include <utility>

#include "ttt/core/parallel.hpp"
#include "ttt/core/small_product.hpp"
#include "ttt/layers/linear_attention_types.hpp"

namespace ttt {

template <Scalar S, class Features>
class LinearAttentionHeads {
 public:
  using Plan = LinearAttentionChunks;
  using Chunk = Plan::Chunk;
  using State = LinearAttentionState<S>;
  using Activations = LinearAttentionActivations<S>;
  using Cache = LinearAttentionCache<S>;
  using Workspace = LinearAttentionWorkspace<S>;
  using Scratch = LinearAttentionScratch<S>;

  explicit LinearAttentionHeads(const LinearAttentionConfig& config) : config_(config) {}

  /// Reads q, k, v of `a`, writes its z and scale, and advances the states. With `cache`, keeps the
  /// states before each chunk.
  void forward(const Plan& plan, Activations& a, States<State> states, Workspace& w,
               Cache* cache) const {
    if (cache) make_room(plan, *cache);
    each_head(plan.sequences(), w, [&](Index s, Index h, Scratch& scratch) {
      for (Index i = plan.first[s]; i < plan.first[s + 1]; ++i) {
        if (cache) copy(*states[s], h, cache->before[i]);
        forward_chunk(plan.chunks[i], h, a, *states[s], scratch);
      }
    });
  }

  /// Reads w.dz, writes w.dq, dk, dv. d_states: adjoints after in, before out.
  void backward(const Cache& cache, States<State> d_states, Workspace& w) const {
    const Plan& plan = cache.plan;
    each_head(plan.sequences(), w, [&](Index s, Index h, Scratch& scratch) {
      for (Index i = plan.first[s + 1]; i-- > plan.first[s];)
        backward_chunk(plan.chunks[i], h, cache.activations, cache.before[i], *d_states[s], w,
                       scratch);
    });
  }

  /// One token: reads w.q_t, k_t, v_t, writes w.z_t. No heap.
  void step(State& state, Workspace& w) const {
    const auto by_head = [&](const Vector<S>& token) {
      return Eigen::Map<const Matrix<S>>(token.data(), f(), config_.heads);
    };
    Features::template forward<S>(by_head(w.q_t), w.Q_t);
    Features::template forward<S>(by_head(w.k_t), w.K_t);
    if (config_.normalized) state.normalizer += w.K_t;
    for (Index h = 0; h < config_.heads; ++h) {
      auto M = memory(state, h);
      auto z = w.z_t.segment(h * f(), f());
      SmallProduct<S>::add_abt(w.v_t.segment(h * f(), f()), w.K_t.col(h), M);
      Product<S>::ab_column(M, w.Q_t.col(h), z);
      if (config_.normalized) z /= state.normalizer.col(h).dot(w.Q_t.col(h)) + epsilon;
    }
  }

 private:
  static constexpr S epsilon = static_cast<S>(LinearAttentionConfig::epsilon);

  Index f() const { return config_.head_width(); }
  auto memory(auto& state, Index h) const { return state.memory.middleCols(h * f(), f()); }
  auto block(auto& tokens, Index h, Chunk chunk) const {
    return tokens.block(h * f(), chunk.begin, f(), chunk.size);
  }

  void make_room(const Plan& plan, Cache& cache) const {
    cache.before.resize(plan.chunks.size());
    for (State& state : cache.before) {
      ensure_shape(state.memory, f(), config_.width);
      ensure_shape(state.normalizer, f(), config_.normalized ? config_.heads : 0);
    }
  }

  void copy(const State& from, Index h, State& to) const {
    memory(to, h) = memory(from, h);
    if (config_.normalized) to.normalizer.col(h) = from.normalizer.col(h);
  }

  template <class Body>
  void each_head(Index sequences, Workspace& w, Body&& body) const {
    if (std::ssize(w.scratch) < available_threads())
      w.scratch.resize(static_cast<std::size_t>(available_threads()));
    parallel_for(config_.heads * sequences, std::ssize(w.scratch), [&](Index task, Index slot) {
      body(task / config_.heads, task % config_.heads, w.scratch[slot]);
    });
  }

  /// Q, K and A of a chunk. Scores of later tokens are overwritten and not multiplied by zero: they
  /// may be NaN.
  void prepare(Chunk chunk, Index h, const Activations& a, Scratch& w) const {
    for (auto* matrix : {&w.Q, &w.K}) ensure_shape(*matrix, f(), chunk.size);
    Features::template forward<S>(block(a.q, h, chunk), w.Q);
    Features::template forward<S>(block(a.k, h, chunk), w.K);
    ensure_shape(w.A, chunk.size, chunk.size);
    SmallProduct<S>::atb(w.K, w.Q, w.A);
    w.A.template triangularView<Eigen::StrictlyLower>().setZero();
  }

  void forward_chunk(Chunk chunk, Index h, Activations& a, State& state, Scratch& w) const {
    prepare(chunk, h, a, w);
    auto M = memory(state, h);
    auto z = block(a.z, h, chunk);
    const Index finite = finite_values(block(std::as_const(a.v), h, chunk), w.V);
    SmallProduct<S>::affine(M, w.Q, Vector<S>(), z);
    SmallProduct<S>::add_ab(w.V, w.A, z);
    z.rightCols(chunk.size - finite).setConstant(std::numeric_limits<S>::quiet_NaN());
    SmallProduct<S>::add_abt(block(std::as_const(a.v), h, chunk), w.K, M);
    if (!config_.normalized) return;
    auto n = state.normalizer.col(h);
    auto scale = a.scale.col(h).segment(chunk.begin, chunk.size);
    Product<S>::atb_column(w.Q, n, scale);
    scale += w.A.colwise().sum().transpose();
    scale = (scale.array() + epsilon).inverse();
    z.array().rowwise() *= scale.array().transpose();
    n += w.K.rowwise().sum();
  }

  /// V without what is not finite: in the product V A it would meet the zeros of earlier outputs,
  /// and 0 * NaN is NaN. Returns the tokens before the first such.
  static Index finite_values(MatrixIn<S> values, Matrix<S>& V) {
    V = values;
    Index finite = 0;
    while (finite < V.cols() && V.col(finite).allFinite()) ++finite;
    V.rightCols(V.cols() - finite).setZero();
    return finite;
  }

  void backward_chunk(Chunk chunk, Index h, const Activations& a, const State& state,
                      State& d_state, Workspace& adjoints, Scratch& w) const {
    prepare(chunk, h, a, w);
    for (auto* matrix : {&w.dQ, &w.dK, &w.dY}) ensure_shape(*matrix, f(), chunk.size);
    ensure_shape(w.dA, chunk.size, chunk.size);
    const auto M = memory(state, h);
    const auto V = block(a.v, h, chunk);
    auto dM = memory(d_state, h);
    auto dV = block(adjoints.dv, h, chunk);
    // z = y / d
    w.dY = block(adjoints.dz, h, chunk);
    if (config_.normalized) divided_backward(chunk, h, a, w);
    // Y = M Q + V A,  M <- M + V K'
    SmallProduct<S>::atb(V, w.dY, w.dA);
    SmallProduct<S>::atb(M, w.dY, w.dQ);
    SmallProduct<S>::atb(dM, V, w.dK);
    SmallProduct<S>::affine(dM, w.K, Vector<S>(), dV);
    SmallProduct<S>::add_abt(w.dY, w.A, dV);
    SmallProduct<S>::add_abt(w.dY, w.Q, dM);
    if (config_.normalized) sums_backward(state.normalizer.col(h), d_state.normalizer.col(h), w);
    // A = K'Q on and above the diagonal
    w.dA.template triangularView<Eigen::StrictlyLower>().setZero();
    SmallProduct<S>::add_ab(w.K, w.dA, w.dQ);
    SmallProduct<S>::add_abt(w.Q, w.dA, w.dK);
    Features::template backward<S>(block(a.q, h, chunk), w.dQ, block(adjoints.dq, h, chunk));
    Features::template backward<S>(block(a.k, h, chunk), w.dK, block(adjoints.dk, h, chunk));
  }

  /// Forward: z_t = y_t / d_t. dY: dz in, dy out.
  void divided_backward(Chunk chunk, Index h, const Activations& a, Scratch& w) const {
    const auto scale = a.scale.col(h).segment(chunk.begin, chunk.size);
    w.dY.array().rowwise() *= scale.array().transpose();
    w.d_sum = -w.dY.cwiseProduct(block(a.z, h, chunk)).colwise().sum().transpose();
  }

  /// Forward: d = n'Q + 1'A + epsilon,  n <- n + K 1.
  static void sums_backward(VectorIn<S> n, VectorOut<S> dn, Scratch& w) {
    w.dK.colwise() += dn;  // that of n after the chunk
    w.dA.rowwise() += w.d_sum.transpose();
    SmallProduct<S>::add_abt(n, w.d_sum, w.dQ);
    dn.noalias() += w.Q * w.d_sum;
  }

  const LinearAttentionConfig& config_;
};

}  // namespace ttt
