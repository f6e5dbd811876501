/// @file
/// What a TTT layer makes of its input x [D, T] for every head and token: the inner learning rate
/// theta, momentum mu and forgetting alpha, as far as the rule has them.
///   theta = scale base_learning_rate policy(a.x + c, k) / f
///   mu, alpha = sigma(a.x + c)
/// where / f is left out if the rule has no rate_over_width.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7; the rule's own headers (inner/).
#pragma once

#include "ttt/core/parallel.hpp"
#include "ttt/inner/learning_rate.hpp"
#include "ttt/layers/ttt_types.hpp"

namespace ttt {

template <Scalar S, InnerModel M, UpdateRule Rule>
class TTTRates {
 public:
  using Traits = RuleTraits<Rule>;
  using Rate = typename Traits::Rate;
  using Parameters = TTTParameters<S, M>;
  using Workspace = TTTWorkspace<S, M, Rule>;
  static constexpr bool has_momentum = Traits::Momentum::present;
  static constexpr bool forgets = Traits::Forgetting::present;

  TTTRates(const TTTConfig& config, const Parameters& parameters)
      : config_(config), p_(parameters) {}

  S scale(double inner_rate_scale) const {
    const double per = Rule::rate_over_width ? static_cast<double>(config_.head_width()) : 1;
    return static_cast<S>(inner_rate_scale * config_.base_learning_rate / per);
  }

  /// The matrices that `forward` fills: [H, tokens].
  static void reserve(TTTActivations<S>& a, Index heads, Index tokens) {
    ensure_shape(a.gate, heads, tokens);
    ensure_shape(a.rate, heads, tokens);
    if constexpr (Rate::reads_input) ensure_shape(a.raw_rate, heads, tokens);
    if constexpr (has_momentum) ensure_shape(a.momentum, heads, tokens);
    if constexpr (forgets) ensure_shape(a.forgetting, heads, tokens);
  }

  /// Reads x and a.k as the inner loop reads it.
  void forward(MatrixIn<S> x, double inner_rate_scale, TTTActivations<S>& a) const {
    if constexpr (Rate::reads_input)
      InnerRate<S>::project(x, p_.rate_weight, p_.rate_bias, a.raw_rate);
    if constexpr (Rate::reads_keys) {
      each_head(x.cols(), [&](Index h) {
        Vector<S> theta(x.cols());
        Rate::template forward<S>(row(a.raw_rate, h), keys(a, h), theta);
        a.gate.row(h) = theta.transpose();
      });
    } else {
      Rate::template forward<S>(all(a.raw_rate), no_keys(), all(a.gate));
    }
    scale_gate(inner_rate_scale, a);
    if constexpr (has_momentum) sigmoid(x, p_.momentum_weight, p_.momentum_bias, a.momentum);
    if constexpr (forgets) sigmoid(x, p_.forgetting_weight, p_.forgetting_bias, a.forgetting);
  }

  /// One token, k [D] as the inner loop reads it: fills the matrices of `a`, without a product that
  /// could allocate.
  void step(VectorIn<S> x_t, const Vector<S>& k, double inner_rate_scale,
            TTTActivations<S>& a) const {
    const Index f = config_.head_width();
    if constexpr (Rate::reads_input)
      InnerRate<S>::step(x_t, p_.rate_weight, p_.rate_bias, a.raw_rate.col(0));
    if constexpr (Rate::reads_keys) {
      for (Index h = 0; h < config_.heads; ++h)
        Rate::template forward<S>(a.raw_rate.col(0).segment(h, 1), k.segment(h * f, f),
                                  a.gate.col(0).segment(h, 1));
    } else {
      Rate::template forward<S>(all(a.raw_rate), no_keys(), all(a.gate));
    }
    scale_gate(inner_rate_scale, a);
    if constexpr (has_momentum) {
      InnerRate<S>::step(x_t, p_.momentum_weight, p_.momentum_bias, a.momentum.col(0));
      SiLU::sigmoid<S>(a.momentum, a.momentum);
    }
    if constexpr (forgets) {
      InnerRate<S>::step(x_t, p_.forgetting_weight, p_.forgetting_bias, a.forgetting.col(0));
      SiLU::sigmoid<S>(a.forgetting, a.forgetting);
    }
  }

  /// Given w.d_rate, d_momentum and d_forgetting, which it uses up: adds into w.dk, dx and `grad`.
  void backward(MatrixIn<S> x, double inner_rate_scale, const TTTActivations<S>& a, MatrixOut<S> dx,
                Parameters& grad, Workspace& w) const {
    if constexpr (Rate::reads_input) {
      w.d_rate *= scale(inner_rate_scale);
      rate_backward(a, w);
      InnerRate<S>::project_backward(x, p_.rate_weight, w.d_raw, dx, grad.rate_weight,
                                     grad.rate_bias);
    }
    if constexpr (has_momentum)
      sigmoid_backward(x, a.momentum, p_.momentum_weight, w.d_momentum, dx, grad.momentum_weight,
                       grad.momentum_bias);
    if constexpr (forgets)
      sigmoid_backward(x, a.forgetting, p_.forgetting_weight, w.d_forgetting, dx,
                       grad.forgetting_weight, grad.forgetting_bias);
  }

 private:
  void scale_gate(double inner_rate_scale, TTTActivations<S>& a) const {
    const S factor = scale(inner_rate_scale);
    ensure_shape(a.rate, a.gate.rows(), a.gate.cols());
    each_lane<S>(a.gate.size(),
                 [&](auto at) { at.store(a.rate.data(), factor * at(a.gate.data())); });
  }

  /// w.d_raw from w.d_rate.
  void rate_backward(const TTTActivations<S>& a, Workspace& w) const {
    const Index tokens = a.rate.cols(), f = config_.head_width();
    ensure_shape(w.d_raw, config_.heads, tokens);
    if constexpr (Rate::reads_keys) {
      each_head(tokens, [&](Index h) {
        Vector<S> d_raw(tokens);
        Rate::template backward<S>(row(a.raw_rate, h), keys(a, h), row(a.gate, h), row(w.d_rate, h),
                                   d_raw, w.dk.middleRows(h * f, f));
        w.d_raw.row(h) = d_raw.transpose();
      });
    } else {
      Matrix<S> no_adjoint;
      Rate::template backward<S>(all(a.raw_rate), no_keys(), all(a.gate), all(w.d_rate),
                                 all(w.d_raw), no_adjoint);
    }
  }

  static void sigmoid(MatrixIn<S> x, MatrixIn<S> weight, MatrixIn<S> bias, MatrixOut<S> y) {
    InnerRate<S>::project(x, weight, bias, y);
    SiLU::sigmoid<S>(y, y);
  }
  static void sigmoid_backward(MatrixIn<S> x, MatrixIn<S> y, MatrixIn<S> weight, MatrixOut<S> dy,
                               MatrixOut<S> dx, MatrixOut<S> d_weight, MatrixOut<S> d_bias) {
    dy.array() *= y.array() * (S(1) - y.array());
    InnerRate<S>::project_backward(x, weight, dy, dx, d_weight, d_bias);
  }

  void each_head(Index tokens, auto&& body) const {
    parallel_for(tokens > 0 ? config_.heads : 0, body);
  }
  auto keys(const TTTActivations<S>& a, Index h) const {
    return a.k.middleRows(h * config_.head_width(), config_.head_width());
  }
  static Matrix<S> no_keys() { return {}; }
  static Vector<S> row(const Matrix<S>& of_heads, Index h) { return of_heads.row(h).transpose(); }
  /// All numbers of a matrix in a column.
  static auto all(const Matrix<S>& of_heads) {
    return Eigen::Map<const Vector<S>>(of_heads.data(), of_heads.size());
  }
  static auto all(Matrix<S>& of_heads) {
    return Eigen::Map<Vector<S>>(of_heads.data(), of_heads.size());
  }

  const TTTConfig& config_;
  const Parameters& p_;
};

}  // namespace ttt
