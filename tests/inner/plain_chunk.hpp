/// @file
/// A chunk as ttt/inner/chunk.hpp defines it, token by token in plain loops, on numbers that
/// remember how they were made (support/tape.hpp):
///   G_s = grad l(W; k_s, v_s)                           by backpropagation of one token
///   W_t = a W + sum_j read_j(t) X_j - sum_{s<=t} E(s,t) G_s         z_t = f(q_t; W_t)
///   W <- W + sum_s e(s) G_s,  X_1 <- X_1 + sum_s e_2(s) G_s
/// A stage of a stack is two functions, `run` and `pull`. Shares no arithmetic with the library: of
/// Eigen's matrices only the memory is used.
#pragma once

#include <map>
#include <numbers>
#include <string>

#include "support/tape.hpp"
#include "ttt/inner/stack.hpp"
#include "ttt/nn/own_activation.hpp"

namespace ttt::test::plain {

using Number = TapeNumber;
using Vec = std::vector<Number>;
using Mat = Matrix<Number>;
using Tensors = std::map<std::string, Mat>;  // by their names

inline Vec column(const Mat& tokens, Index t) {
  return Vec(tokens.data() + t * tokens.rows(), tokens.data() + (t + 1) * tokens.rows());
}
inline Vec operator+(Vec a, const Vec& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}
inline Vec operator-(Vec a, const Vec& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  return a;
}
/// Number by number.
inline Vec operator*(Vec a, const Vec& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] *= b[i];
  return a;
}
inline Vec operator*(const Number& a, Vec b) {
  for (Number& x : b) x *= a;
  return b;
}
inline Number sum(const Vec& a) {
  Number total;
  for (const Number& x : a) total += x;
  return total;
}
inline Vec less_its_mean(const Vec& a) {
  return a - Vec(a.size(), sum(a) / static_cast<double>(a.size()));
}

/// W_l and b_l of a head, or a gradient of them. b is empty where there is none.
struct Map {
  Mat W, b;
};
using Weights = std::vector<Map>;

inline Weights zero_like(Weights weights) {
  for (Map& map : weights)
    for (Mat* mat : {&map.W, &map.b})
      for (Index i = 0; i < mat->size(); ++i) mat->data()[i] = 0;
  return weights;
}
/// to <- to + factor X
inline void add(Weights& to, const Number& factor, const Weights& X) {
  for (std::size_t l = 0; l < to.size(); ++l) {
    for (Index i = 0; i < X[l].W.size(); ++i) to[l].W.data()[i] += factor * X[l].W.data()[i];
    for (Index i = 0; i < X[l].b.size(); ++i) to[l].b.data()[i] += factor * X[l].b.data()[i];
  }
}

/// Activations and their derivatives.
inline Number sigma(const Number& z) { return 1 / (1 + exp(-z)); }
inline Number value(Identity, const Number& z) { return z; }
inline Number slope(Identity, const Number&) { return 1; }
inline Number value(ReLU, const Number& z) { return z > 0 ? z : 0; }
inline Number slope(ReLU, const Number& z) { return z > 0 ? 1 : 0; }
inline Number value(Tanh, const Number& z) { return tanh(z); }
inline Number slope(Tanh, const Number& z) { return 1 - tanh(z) * tanh(z); }
inline Number value(SiLU, const Number& z) { return z * sigma(z); }
inline Number slope(SiLU, const Number& z) { return sigma(z) + z * sigma(z) * (1 - sigma(z)); }
inline const double gelu_scale = std::sqrt(2 / std::numbers::pi);
/// z (1 + tanh u) / 2, u = c (z + 0.044715 z^3), u' = c + c3 z^2
inline Number gelu_slope(const Number& z, double c, double c3) {
  const Number t = tanh(c * (z + 0.044715 * z * z * z));
  return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * (c + c3 * z * z);
}
inline Number value(GeluTanh, const Number& z) {
  return 0.5 * z * (1 + tanh(gelu_scale * (z + 0.044715 * z * z * z)));
}
inline Number slope(GeluTanh, const Number& z) {
  return gelu_slope(z, gelu_scale, 3 * 0.044715 * gelu_scale);
}
inline Number value(GeluTanhRounded, const Number& z) { return value(GeluTanh(), z); }
inline Number slope(GeluTanhRounded, const Number& z) {
  return gelu_slope(z, 0.79788456, 0.1070322243);
}
template <class F>
Number value(OwnActivation<F>, const Number& z) {
  return F::value(z);
}
template <class F>
Number slope(OwnActivation<F>, const Number& z) {
  return F::slope(z);
}

/// x = c / s, s = sqrt(mean(c^2) + 1e-6), c = z - mean(z) or z.
struct Standardized {
  bool centred;
  Vec c, x;
  Number s;

  Standardized(const Vec& z, bool is_centred)
      : centred(is_centred), c(centred ? less_its_mean(z) : z) {
    s = sqrt(sum(c * c) / static_cast<double>(c.size()) + 1e-6);
    x = (1 / s) * c;
  }
  /// dl/dz from d = dl/dx: dl/ds = -(c.d) / s^2, dl/dc = d / s + dl/ds c / (n s).
  Vec pull(const Vec& d) const {
    const Number ds = -sum(c * d) / (s * s);
    const Vec dc = (1 / s) * d + (ds / (static_cast<double>(c.size()) * s)) * c;
    return centred ? less_its_mean(dc) : dc;
  }
};

/// A part of a stack: s(a) of one token; and from d = dl/ds(a) both dl/da, which is returned, and
/// dl/dW, which is added into G. W and G point to the part's first weights. Here an activation.
template <class Part>
struct Stage {
  static constexpr std::size_t weights = 0;
  static Vec run(const Map*, Vec a) {
    for (Number& z : a) z = value(Part(), z);
    return a;
  }
  static Vec pull(const Map*, Vec a, const Vec& d, Map*) {
    for (Number& z : a) z = slope(Part(), z);
    return a * d;
  }
};

template <int multiple, bool bias>
struct Stage<Affine<multiple, bias>> {
  static constexpr std::size_t weights = 1;
  static Vec run(const Map* map, const Vec& a) {
    Vec z(static_cast<std::size_t>(map->W.rows()));
    for (std::size_t i = 0; i < z.size(); ++i) {
      if (bias) z[i] = map->b(Index(i));
      for (std::size_t j = 0; j < a.size(); ++j) z[i] += map->W(Index(i), Index(j)) * a[j];
    }
    return z;
  }
  static Vec pull(const Map* map, const Vec& a, const Vec& d, Map* G) {
    Vec below(a.size());
    for (std::size_t i = 0; i < d.size(); ++i) {
      if (bias) G->b(Index(i)) += d[i];
      for (std::size_t j = 0; j < a.size(); ++j) {
        G->W(Index(i), Index(j)) += d[i] * a[j];
        below[j] += map->W(Index(i), Index(j)) * d[i];
      }
    }
    return below;
  }
};

template <bool centred>
struct Norm {
  static constexpr std::size_t weights = 0;
  static Vec run(const Map*, const Vec& a) { return Standardized(a, centred).x; }
  static Vec pull(const Map*, const Vec& a, const Vec& d, Map*) {
    return Standardized(a, centred).pull(d);
  }
};
template <>
struct Stage<LayerNormStage> : Norm<true> {};
template <>
struct Stage<RMSNormStage> : Norm<false> {};

/// Parts one after another.
template <class... Parts>
struct Sequence {
  static constexpr std::size_t weights = 0;
  static Vec run(const Map*, const Vec& a) { return a; }
  static Vec pull(const Map*, const Vec&, const Vec& d, Map*) { return d; }
};
template <class Part, class... Others>
struct Sequence<Part, Others...> {
  using First = Stage<Part>;
  using Rest = Sequence<Others...>;
  static constexpr std::size_t weights = First::weights + Rest::weights;
  static Vec run(const Map* W, const Vec& a) {
    return Rest::run(W + First::weights, First::run(W, a));
  }
  static Vec pull(const Map* W, const Vec& a, const Vec& d, Map* G) {
    const Vec next = First::run(W, a);
    return First::pull(W, a, Rest::pull(W + First::weights, next, d, G + First::weights), G);
  }
};
template <class... Parts>
struct Stage<Chain<Parts...>> : Sequence<Parts...> {};

template <class... Parts>
struct Stage<Residual<Parts...>> {
  using Inner = Sequence<Parts...>;
  static constexpr std::size_t weights = Inner::weights;
  static Vec run(const Map* W, const Vec& a) { return a + Inner::run(W, a); }
  static Vec pull(const Map* W, const Vec& a, const Vec& d, Map* G) {
    return d + Inner::pull(W, a, d, G);
  }
};

template <class LeftPart, class RightPart>
struct Stage<Gated<LeftPart, RightPart>> {
  using Left = Stage<LeftPart>;
  using Right = Stage<RightPart>;
  static constexpr std::size_t weights = Left::weights + Right::weights;
  static Vec run(const Map* W, const Vec& a) {
    return Left::run(W, a) * Right::run(W + Left::weights, a);
  }
  static Vec pull(const Map* W, const Vec& a, const Vec& d, Map* G) {
    const Vec l = Left::run(W, a), r = Right::run(W + Left::weights, a);
    return Left::pull(W, a, r * d, G) + Right::pull(W + Left::weights, a, l * d, G + Left::weights);
  }
};

/// Losses of one number p and its target, and their derivatives in p.
inline Number loss(SquaredError, const Number& p, const Number& target) {
  return 0.5 * (p - target) * (p - target);
}
inline Number slope(SquaredError, const Number& p, const Number& target) { return p - target; }
inline Number loss(DotProduct, const Number& p, const Number& target) { return -p * target; }
inline Number slope(DotProduct, const Number&, const Number& target) { return -target; }
template <class Delta>
Number loss(HuberError<Delta>, const Number& p, const Number& target) {
  const double delta = static_cast<double>(Delta::num) / static_cast<double>(Delta::den);
  const Number e = p > target ? p - target : target - p;
  return e > delta ? delta * (e - 0.5 * delta) : 0.5 * e * e;
}
template <class Delta>
Number slope(HuberError<Delta>, const Number& p, const Number& target) {
  const double delta = static_cast<double>(Delta::num) / static_cast<double>(Delta::den);
  const Number e = p - target;
  return e > delta ? delta : e < -delta ? -delta : e;
}

/// What stands between the top z of a stack and its loss and answer.
template <class TopNorm, class Loss, bool residual>
struct Top {
  Vec gamma, beta;

  Vec norm(const Vec& z) const {
    return TopNorm::normalizes ? gamma * Standardized(z, TopNorm::centred).x + beta : z;
  }
  Vec answer(const Vec& z, const Vec& q) const { return residual ? q + norm(z) : norm(z); }
  Vec target(const Vec& k, const Vec& v) const { return residual ? v - k : v; }

  Number loss(const Vec& z, const Vec& k, const Vec& v) const {
    const Vec p = norm(z), t = target(k, v);
    Number total;
    for (std::size_t i = 0; i < p.size(); ++i) total += plain::loss(Loss(), p[i], t[i]);
    return total;
  }
  /// dl/dz
  Vec pull(const Vec& z, const Vec& k, const Vec& v) const {
    const Vec t = target(k, v);
    Vec d = norm(z);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] = plain::slope(Loss(), d[i], t[i]);
    return TopNorm::normalizes ? Standardized(z, TopNorm::centred).pull(gamma * d) : d;
  }
};
template <class TopNorm, class Loss, bool residual>
Top<TopNorm, Loss, residual> top_of(const OutputRule<TopNorm, Loss, residual>&);

/// The inner model M at some weights, from tensors with the names of a `ChunkCase`.
template <class M>
struct Model {
  using Stages = Stage<typename M::Stages>;
  const Tensors& p;
  decltype(top_of(typename M::Output())) top{column(p.at("gamma"), 0), column(p.at("beta"), 0)};

  /// "W", "X_1" or "X_2"
  Weights weights(const std::string& name) const {
    Weights result;
    for (std::size_t l = 1; l <= Stages::weights; ++l) {
      const auto b = p.find(concat(name, ".b", l));
      result.push_back({p.at(concat(name, ".W", l)), b == p.end() ? Mat() : b->second});
    }
    return result;
  }
  Number loss(const Weights& W, const Vec& k, const Vec& v) const {
    return top.loss(Stages::run(W.data(), k), k, v);
  }
  Weights gradient(const Weights& W, const Vec& k, const Vec& v) const {
    Weights G = zero_like(W);
    Stages::pull(W.data(), k, top.pull(Stages::run(W.data(), k), k, v), G.data());
    return G;
  }
  Vec answer(const Weights& W, const Vec& q) const {
    return top.answer(Stages::run(W.data(), q), q);
  }
};

/// The chunk: answers "O", and "W" and "X" afterwards, named as in a `ChunkResult`. Without E the
/// answers read nothing that the chunk has learned.
template <class M>
Tensors run(const Tensors& p, bool reads_anchor) {
  const Model<M> model{p};
  const Weights W = model.weights("W"), X_1 = model.weights("X_1"), X_2 = model.weights("X_2");
  const Mat &K = p.at("K"), &Q = p.at("Q"), &V = p.at("V");
  std::vector<Weights> G;
  for (Index t = 0; t < K.cols(); ++t) G.push_back(model.gradient(W, column(K, t), column(V, t)));

  Tensors result{{"O", Mat(K.rows(), K.cols())}};
  for (Index t = 0; t < K.cols(); ++t) {
    Weights W_t = reads_anchor ? W : zero_like(W);
    add(W_t, p.at("read_1")(t), X_1);
    add(W_t, p.at("read_2")(t), X_2);
    for (Index s = 0; s <= t && p.contains("E"); ++s) add(W_t, -p.at("E")(s, t), G[std::size_t(s)]);
    const Vec z = model.answer(W_t, column(Q, t));
    for (Index i = 0; i < K.rows(); ++i) result["O"](i, t) = z[std::size_t(i)];
  }
  const auto carry = [&](const char* name, Weights X, const Mat& e) {
    for (Index s = 0; s < K.cols(); ++s) add(X, e(s), G[std::size_t(s)]);
    for (std::size_t l = 0; l < X.size(); ++l) {
      result[concat(name, ".W", l + 1)] = X[l].W;
      result[concat(name, ".b", l + 1)] = X[l].b;
    }
  };
  carry("W", W, p.at("e"));
  carry("X", X_1, p.at("e_2"));
  return result;
}

}  // namespace ttt::test::plain
