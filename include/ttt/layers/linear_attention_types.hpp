/// @file
/// The five types of a linear attention layer. D width, H heads, f = D/H, c tokens of a chunk.
/// Tensors carry the names and bytes of Hugging Face's LlamaAttention.
/// Source: Katharopoulos et al. 2020 (arXiv 2006.16236).
#pragma once

#include <algorithm>
#include <vector>

#include "ttt/core/random.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt {

/// Sizes and switches.
struct LinearAttentionConfig {
  static constexpr double epsilon = 1e-6;  ///< added to what an output is divided by

  Index width = 0;
  Index heads = 1;
  bool normalized = true;  ///< outputs are divided by the sum of their scores

  Index head_width() const { return width / heads; }

  /// Throws `std::invalid_argument` for the first violation.
  void validate() const {
    require(width > 0, "LinearAttentionConfig: width is ", width, ", expected a positive number");
    require(heads > 0, "LinearAttentionConfig: heads is ", heads, ", expected a positive number");
    require(width % heads == 0, "LinearAttentionConfig: width ", width,
            " is not a multiple of heads ", heads);
  }
};

/// What the outer loop learns.
template <Scalar S>
struct LinearAttentionParameters {
  Matrix<S> q_proj, k_proj, v_proj, o_proj;  // [D, D] as [in, out]

  static auto fields(auto& self) {
    return std::tuple(streamed(field("q_proj.weight", self.q_proj)),
                      streamed(field("k_proj.weight", self.k_proj)),
                      streamed(field("v_proj.weight", self.v_proj)),
                      streamed(field("o_proj.weight", self.o_proj)));
  }

  /// Normal with `standard_deviation`.
  static LinearAttentionParameters initial(const LinearAttentionConfig& config, Random& random,
                                           double standard_deviation = 0.02) {
    LinearAttentionParameters p;
    for (auto* weight : {&p.q_proj, &p.k_proj, &p.v_proj, &p.o_proj}) {
      weight->resize(config.width, config.width);
      random.fill_normal(*weight, standard_deviation);
    }
    return p;
  }
};

/// What a stream carries: of each head M = sum v phi(k)' and n = sum phi(k).
template <Scalar S>
struct LinearAttentionState {
  Matrix<S> memory;      // [f, H f] M of one head beside that of another
  Matrix<S> normalizer;  // [f, H] n; empty where outputs are not divided

  static auto fields(auto& self) {
    return std::tuple(field("memory", self.memory), field("normalizer", self.normalizer));
  }
};

/// How the sequences of a batch are cut: all tokens of a chunk are taken together.
struct LinearAttentionChunks {
  static constexpr Index most_tokens = 64;  // c

  struct Chunk {
    Index begin, size;  // columns [begin, begin + size) of the batch
  };
  std::vector<Chunk> chunks;
  std::vector<Index> first{0};  // [sequences + 1] of each sequence: its first chunk

  LinearAttentionChunks() = default;
  explicit LinearAttentionChunks(Lengths lengths) {
    Index begin = 0;
    for (const Index length : lengths) {
      for (const Index end = begin + length; begin < end; begin += chunks.back().size)
        chunks.push_back({begin, std::min(most_tokens, end - begin)});
      first.push_back(std::ssize(chunks));
    }
  }

  Index sequences() const { return std::ssize(first) - 1; }
};

/// Intermediate values of a forward, one column a token of the batch.
template <Scalar S>
struct LinearAttentionActivations {
  Matrix<S> q, k, v;  // [D, T] before the feature map
  Matrix<S> z;        // [D, T] outputs of the heads
  Matrix<S> scale;    // [T, H] what they were multiplied by, 1 / (n'phi(q) + epsilon)
};

/// What one forward leaves behind for one backward.
template <Scalar S>
struct LinearAttentionCache {
  Matrix<S> x;
  LinearAttentionActivations<S> activations;
  LinearAttentionChunks plan;
  std::vector<LinearAttentionState<S>> before;  // of each chunk: the state that it met
};

/// Scratch of one head and chunk of m tokens.
template <Scalar S>
struct LinearAttentionScratch {
  Matrix<S> Q, K, V, dQ, dK, dY;  // [f, m] phi(q), phi(k), v, and adjoints; Y = M Q + V A
  Matrix<S> A, dA;                // [m, m] scores, 0 below the diagonal
  Vector<S> d_sum;                // [m] adjoints of the sums that outputs are divided by
};

/// Scratch memory of a layer.
template <Scalar S>
struct LinearAttentionWorkspace {
  LinearAttentionActivations<S> activations;
  Matrix<S> dz, dq, dk, dv;                        // [D, T]
  std::vector<LinearAttentionScratch<S>> scratch;  // one for each thread
  Vector<S> q_t, k_t, v_t, z_t;                    // [D] one token
  Matrix<S> Q_t, K_t;                              // [f, H] its features
};

}  // namespace ttt
