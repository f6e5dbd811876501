/// @file
/// A TTT layer as its equations say it, token after token, on numbers that remember how they were
/// made (support/tape.hpp): the loops that the layer's chunks unroll. With anchor W, the weights at
/// the start of the mini-batch, G_t = grad l(W; k_t, v_t), a token learns by
///   S <- mu_t S - theta_t G_t      C <- (1 - alpha_t) C + S      at a border W <- C
/// and with token factors tau of the places in a mini-batch by
///   R <- R + theta_t G_t      C <- W - tau_t R                   at a border W <- C, R <- 0
/// and where the direction is not linear in the gradient, at a border, by
///   S <- mean(mu) S + sum theta_t G_t      W <- (1 - mean(alpha)) W - direction(S)
/// Shares no code with the library but the masks' random numbers.
#pragma once

#include <map>
#include <string>

#include "support/tape.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt::test::loop {

using Number = TapeNumber;
using Mat = Matrix<Number>;
using Vec = Vector<Number>;
using Tensors = std::map<std::string, Mat>;  // by their names in files

inline Number sigma(const Number& r) { return 1 / (1 + exp(-r)); }

/// Norm without scale and offset: (z - mean) / s, s = sqrt(mean (z - mean)^2 + 1e-6).
struct Standardized {
  Vec x;
  Number s;
  explicit Standardized(const Vec& z) {
    x = z.array() - z.mean();
    s = sqrt(x.squaredNorm() / static_cast<double>(z.size()) + 1e-6);
    x /= s;
  }
};

/// Rates: theta of a token.
inline Number rate(ConstantRate, const Number&, const Vec&) { return 1; }
inline Number rate(SigmoidRate, const Number& r, const Vec&) { return sigma(r); }
inline Number rate(SoftplusRate, const Number& r, const Vec&) { return log(1 + exp(r)); }
inline Number rate(ProximalRate, const Number& r, const Vec& k) {
  return sigma(r) / (1 + sigma(r) * k.squaredNorm());
}

/// Feature maps, of one head.
inline Vec features(NoFeatureMap, const Vec& x) { return x; }
inline Vec features(EluPlusOne, const Vec& x) {
  return x.unaryExpr([](const Number& a) { return a > 0 ? a + 1 : exp(a); });
}
inline Vec features(SiLUNormalized, const Vec& x) {
  const Vec y = x.unaryExpr([](const Number& a) { return a * sigma(a); });
  return y / sqrt(y.squaredNorm() + 1e-6);
}

/// Directions, of one matrix.
inline Mat direction(const ClippedDirection& clipped, const Mat& G) {
  return G.norm() > clipped.limit ? Mat(G * (clipped.limit / G.norm())) : G;
}
inline Mat direction(const NewtonSchulzDirection& orthogonal, const Mat& G) {
  Mat X = G / (G.norm() + 1e-7);
  for (int i = 0; i < 5; ++i) {
    const Mat A = X * X.transpose();
    const Mat B = Number(-4.7750) * A + Number(2.0315) * A * A;
    const Mat BX = B * X;
    X = Number(3.4445) * X + BX;
  }
  return X * Number(orthogonal.scale);
}

/// What one head learns, or a gradient of it: W_1, b_1, W_2, b_2 ..., b empty where there is none.
struct Weights {
  std::vector<Mat> parts;

  friend Weights operator*(const Number& a, Weights X) {
    for (Mat& part : X.parts) part *= a;
    return X;
  }
  friend Weights operator+(Weights X, const Weights& Y) {
    for (std::size_t i = 0; i < X.parts.size(); ++i) X.parts[i] += Y.parts[i];
    return X;
  }
  friend Weights operator-(const Weights& X, const Weights& Y) { return X + Number(-1) * Y; }
};

/// The matrices alone; biases move by the sum itself.
Weights direction(const auto& of_matrix, Weights S) {
  for (std::size_t i = 0; i < S.parts.size(); i += 2) S.parts[i] = direction(of_matrix, S.parts[i]);
  return S;
}

/// A chain of affine maps, a_l = W_l a_{l-1} + b_l.
struct AffineChain {
  /// a_0 = x, a_1, ... of one token.
  static std::vector<Vec> run(const Weights& weights, const Vec& x) {
    std::vector<Vec> a{x};
    for (std::size_t i = 0; i < weights.parts.size(); i += 2) {
      const Mat &W = weights.parts[i], &b = weights.parts[i + 1];
      a.push_back(W * a.back());
      if (b.size() > 0) a.back() += b;
    }
    return a;
  }
  /// From d = dl/da_N: dl/db_l = d_l, dl/dW_l = d_l a_{l-1}', d_{l-1} = W_l' d_l.
  static Weights gradient(const Weights& weights, const std::vector<Vec>& a, Vec d) {
    Weights G = weights;
    for (std::size_t l = a.size() - 1; l-- > 0;) {
      G.parts[2 * l] = d * a[l].transpose();
      if (G.parts[2 * l + 1].size() > 0) G.parts[2 * l + 1] = d;
      d = Vec(weights.parts[2 * l].transpose() * d);
    }
    return G;
  }
};

/// Norm, loss and residual on top.
template <class Norm, class Loss, bool residual>
struct Top {
  Vec gamma, beta;  // [f]; empty without norm

  Vec normed(const Vec& z) const {
    if (!Norm::normalizes) return z;
    return gamma.cwiseProduct(Standardized(z).x) + beta;
  }
  Vec answer(const Vec& z, const Vec& q) const { return residual ? Vec(q + normed(z)) : normed(z); }

  /// dl/dz
  Vec slope(const Vec& z, const Vec& k, const Vec& v) const {
    const Vec target = residual ? Vec(v - k) : v;
    const Vec e = std::same_as<Loss, DotProduct> ? Vec(-target) : Vec(normed(z) - target);
    if (!Norm::normalizes) return e;
    const Standardized standardized(z);
    const Vec &x = standardized.x, d = gamma.cwiseProduct(e);
    const Number mean_d = d.mean(), mean_dx = d.cwiseProduct(x).mean();
    return (d.array() - mean_d - x.array() * mean_dx) / standardized.s;
  }
};
template <class Norm, class Loss, bool residual>
Top<Norm, Loss, residual> top_of(const OutputRule<Norm, Loss, residual>&);

/// The inner loop of one head.
template <class Model, class Rule>
struct Head {
  using Traits = RuleTraits<Rule>;
  static constexpr bool at_border = !Traits::Direction::is_linear;

  Index mini_batch;
  Vec tau;  // [mini_batch]; empty without token factors
  decltype(top_of(typename Model::Output())) top;
  Weights W;                  // at the start of the mini-batch
  Weights C = W;              // current; not with `at_border`
  Weights S = Number(0) * W;  // momentum
  Weights R = Number(0) * W;  // sum of theta G since the border
  Number mu_sum = 0, alpha_sum = 0;
  Index place = 0;
  std::vector<double> norms = {};  // of every matrix of S, at borders that take a direction of it

  Vec token(const Vec& k, const Vec& q, const Vec& v, const Number& theta, const Number& mu,
            const Number& alpha) {
    Vec z;
    for (int i = 0; i < Rule::inner_steps; ++i) {
      learn(k, v, theta, mu, alpha);
      z = top.answer(AffineChain::run(Rule::schedule.learns_first ? C : W, q).back(), q);
      if (++place == mini_batch) finish_mini_batch();
    }
    return z;
  }

  void learn(const Vec& k, const Vec& v, const Number& theta, const Number& mu,
             const Number& alpha) {
    if (Traits::decays_first) W = C = (1 - alpha) * C;
    const auto a = AffineChain::run(W, k);
    const Weights G = AffineChain::gradient(W, a, top.slope(a.back(), k, v));
    R = R + theta * G;
    mu_sum += mu;
    alpha_sum += alpha;
    if (at_border) return;
    if (Rule::token_factors) {
      C = W - tau[place] * R;
      return;
    }
    S = mu * S - theta * G;
    C = (Traits::decays_first ? 1 : 1 - alpha) * C + S;
  }

  void finish_mini_batch() {
    if constexpr (at_border) {
      const Number mu = mu_sum / static_cast<double>(place);
      const Number alpha = alpha_sum / static_cast<double>(place);
      S = mu * S + R;
      for (std::size_t i = 0; i < S.parts.size(); i += 2) norms.push_back(S.parts[i].norm().value);
      W = (1 - alpha) * W - direction(Rule::direction, S);
    } else {
      W = C;
    }
    R = Number(0) * R;
    mu_sum = alpha_sum = 0;
    place = 0;
  }
};

/// The whole layer, one stream from its start; without gate and without share_qk.
template <class Model, class Rule>
class Layer {
 public:
  using Traits = RuleTraits<Rule>;

  /// The tensors of `parameters` must outlive the layer.
  Layer(const TTTConfig& config, const Tensors& parameters)
      : config_(config), f_(config.head_width()), p_(parameters) {
    for (Index h = 0; h < config.heads; ++h) {
      Weights W_0;
      for (std::size_t l = 0; l < Model::weight_count; ++l) {
        const WeightShape shape = Model::weight_shape(l, f_);
        for (const auto& [name, cols] : {std::pair("W", shape.cols), {"b", Index(shape.bias)}})
          W_0.parts.push_back(config.learned_initial_weights && cols > 0
                                  ? of_head(name + std::to_string(l + 1), h)
                                  : Mat(Mat::Zero(cols > 0 ? shape.rows : 0, cols)));
      }
      heads_.push_back({Rule::schedule.mini_batch(config.mini_batch), token_factors(), {}, W_0});
      if (!Model::Output::has_norm) continue;
      heads_.back().top = {of_head("ttt_norm_weight", h), of_head("ttt_norm_bias", h)};
    }
  }

  /// x_t, y_t [D]
  Vec token(const Vec& x) {
    Vec z(config_.width);
    for (Index h = 0; h < config_.heads; ++h) {
      const auto [k, q, v] = views(x, h);
      const double per = Rule::rate_over_width ? static_cast<double>(f_) : 1;
      const Number r = Traits::Rate::reads_input ? dot("learnable_ttt_lr", "_", x, h) : 0;
      const Number theta = config_.base_learning_rate / per * rate(Rule::rate, r, k);
      const Number mu = Traits::Momentum::present ? sigma(dot("momentum", ".", x, h)) : 0;
      const Number alpha = Traits::Forgetting::present ? sigma(dot("forgetting", ".", x, h)) : 0;
      z.segment(h * f_, f_) = heads_[std::size_t(h)].token(k, q, v, theta, mu, alpha);
    }
    ++position_;
    const Vec normed = p_.at("post_norm.weight").cwiseProduct(Standardized(z).x);
    return p_.at("o_proj.weight").transpose() * (normed + p_.at("post_norm.bias"));
  }

  /// |S| of every matrix that a direction was taken of.
  std::vector<double> norms() const {
    std::vector<double> result;
    for (const auto& head : heads_)
      result.insert(result.end(), head.norms.begin(), head.norms.end());
    return result;
  }

  /// All that a stream can carry, as a state names it.
  Tensors state() const {
    Tensors result;
    for (Index h = 0; h < config_.heads; ++h) {
      const auto& head = heads_[std::size_t(h)];
      for (const auto& [name, weights] : {std::pair("weights", &head.W),
                                          {"current", &head.C},
                                          {"momentum", &head.S},
                                          {"sums", &head.R}})
        for (std::size_t i = 0; i < weights->parts.size(); ++i)
          append(weights->parts[i], result[concat(name, i % 2 ? ".b" : ".W", i / 2 + 1)]);
      Mat totals(2, 1);
      totals << head.mu_sum, head.alpha_sum;
      append(totals, result["totals"]);
    }
    return result;
  }

 private:
  struct Views {
    Vec k, q, v;
  };

  /// max(0, 1 / (place + 1) + learned)
  Vec token_factors() const {
    if (!Rule::token_factors) return {};
    Vec tau = p_.at("learnable_token_idx").col(0);
    for (Index place = 0; place < tau.size(); ++place) {
      tau[place] += 1 / static_cast<double>(place + 1);
      if (tau[place] < 0) tau[place] = 0;
    }
    return tau;
  }

  /// What head h reads of a token.
  Views views(const Vec& x, Index h) const {
    const Vec own = x.segment(h * f_, f_);
    if constexpr (Traits::reconstructs) {
      const auto map = [](const Vec& a) { return features(Rule::features, a); };
      return {map(mask(h).template cast<Number>().cwiseProduct(own)), map(own), own};
    } else {
      const auto project = [&](const char* name) -> Vec {
        return p_.at(name).middleCols(h * f_, f_).transpose() * x;
      };
      const auto map = [&](const Vec& a) { return features(Rule::features, rotated(a)); };
      return {map(project(config_.queries_as_keys ? "q_proj.weight" : "k_proj.weight")),
              map(project("q_proj.weight")), project("v_proj.weight")};
    }
  }

  /// 0 where a channel is corrupted, else 1: [f].
  Vector<double> mask(Index h) const {
    auto corruption = Rule::corruption;
    corruption.seed += static_cast<std::uint64_t>(h);
    typename Traits::Corruption::template Scratch<double> scratch;
    Vector<double> result(f_);
    corruption.template apply<double>(Vector<double>::Ones(f_), position_, result, scratch);
    return result;
  }

  /// Pairs of channels turned by the place in the mini-batch.
  Vec rotated(Vec a) const {
    if (!config_.rotary || Traits::counts_tokens) return a;
    const Index m = position_ % Rule::schedule.mini_batch(config_.mini_batch);
    for (Index i = 0; i < f_; i += 2) {
      const double exponent = -static_cast<double>(i) / static_cast<double>(f_);
      const double angle = static_cast<double>(m) * std::pow(config_.rope_theta, exponent);
      const Number first = a[i], second = a[i + 1];
      a[i] = first * std::cos(angle) - second * std::sin(angle);
      a[i + 1] = first * std::sin(angle) + second * std::cos(angle);
    }
    return a;
  }

  /// a.x + c of head h
  Number dot(const std::string& name, const char* separator, const Vec& x, Index h) const {
    return of_head(name + separator + "weight", h).col(0).dot(x) +
           of_head(name + separator + "bias", h)(0, 0);
  }
  Mat of_head(const std::string& name, Index h) const {
    const Mat& tensor = p_.at(name);
    const Index cols = tensor.cols() / config_.heads;
    return tensor.middleCols(h * cols, cols);
  }
  static void append(const Mat& columns, Mat& to) {
    to.conservativeResize(columns.rows(), to.cols() + columns.cols());
    to.rightCols(columns.cols()) = columns;
  }

  TTTConfig config_;
  Index f_, position_ = 0;
  const Tensors& p_;
  std::vector<Head<Model, Rule>> heads_;
};

}  // namespace ttt::test::loop
