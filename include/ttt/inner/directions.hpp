/// @file
/// What turns a chunk's accumulated gradient G, one weight matrix [out, in], into the direction D
/// of the update W' = W - D:
///   GradientDescent         D = G
///   ClippedDirection        D = G min(1, limit / |G|)                     (|.| Frobenius)
///   NewtonSchulzDirection   X_0 = G / (|G| + 1e-7), A = X X', X <- a X + (b A + c A^2) X, 5 times:
///                           singular values all near 1. Keller Jordan, Muon (2024); LaCT, Zhang et
///                           al. 2025 (arXiv 2505.23884); times `scale`. A tall G is transposed.
/// Shapes: G, D, dG, dD [out, in]; dG is overwritten; no argument may be the memory of another.
#pragma once

#include <array>
#include <concepts>

#include "ttt/core/check.hpp"
#include "ttt/core/product.hpp"
#include "ttt/core/scalar.hpp"

namespace ttt {

/// One interface for all that happens between gradient and update; `is_linear` says whether G may
/// be taken apart into tokens (an E-kernel), or D exists once a chunk only.
template <class P, class S>
concept Direction = requires(const P& direction, MatrixIn<S> in, MatrixOut<S> out,
                             typename P::template Scratch<S>& scratch) {
  { P::is_linear } -> std::convertible_to<bool>;
  direction.validate();
  direction.template forward<S>(in, out, scratch);
  direction.template backward<S>(in, in, out, scratch);
};

struct GradientDescent {
  static constexpr bool is_linear = true;
  template <Scalar S>
  struct Scratch {};

  void validate() const {}
  template <Scalar S>
  void forward(MatrixIn<S> G, MatrixOut<S> D, Scratch<S>&) const {
    D = G;
  }
  template <Scalar S>
  void backward(MatrixIn<S>, MatrixIn<S> dD, MatrixOut<S> dG, Scratch<S>&) const {
    dG = dD;
  }
};

struct ClippedDirection {
  static constexpr bool is_linear = false;
  template <Scalar S>
  struct Scratch {};

  double limit = 1;  // of the Frobenius norm

  /// Throws `std::invalid_argument`.
  void validate() const {
    require(limit > 0, "ClippedDirection: limit is ", limit, ", expected more than 0");
  }
  template <Scalar S>
  void forward(MatrixIn<S> G, MatrixOut<S> D, Scratch<S>&) const {
    const S norm = G.stableNorm();
    if (norm > S(limit)) {
      D = (S(limit) / norm) * G;
    } else {
      D = G;
    }
  }
  /// dG = limit (dD - N <N, dD>) / |G|,  N = G / |G|
  template <Scalar S>
  void backward(MatrixIn<S> G, MatrixIn<S> dD, MatrixOut<S> dG, Scratch<S>&) const {
    const S norm = G.stableNorm();
    dG = dD;
    if (!(norm > S(limit))) return;
    const S along = (G / norm).cwiseProduct(dD).sum();
    dG = (S(limit) / norm) * (dG - along * (G / norm));
  }
};

/// The size of G is lost, and with it that of the rate: `scale` says how far W moves.
struct NewtonSchulzDirection {
  static constexpr bool is_linear = false;
  static constexpr int steps = 5;
  static constexpr double a = 3.4445, b = -4.7750, c = 2.0315, epsilon = 1e-7;

  /// r = min(out, in), n = max(out, in).
  template <Scalar S>
  struct Scratch {
    std::array<Matrix<S>, steps + 1> X;  // [r, n] iterates
    Matrix<S> A, B;                      // [r, r] X X' and b A + c A^2
    Matrix<S> P, Q;                      // [r, r]
    Matrix<S> Y, dX;                     // [r, n] adjoints
  };

  double scale = 1;  // about the singular values of D

  /// Throws `std::invalid_argument`.
  void validate() const {
    require(scale > 0, "NewtonSchulzDirection: scale is ", scale, ", expected more than 0");
  }

  template <Scalar S>
  void forward(MatrixIn<S> G, MatrixOut<S> D, Scratch<S>& scratch) const {
    iterate<S>(G, scratch);
    write<S>(scratch.X[steps], D);
    D *= S(scale);
  }

  /// Every stage is the gradient of a function of its input, so its Jacobian is symmetric: the
  /// adjoint of a stage is its derivative in the direction Y.
  template <Scalar S>
  void backward(MatrixIn<S> G, MatrixIn<S> dD, MatrixOut<S> dG, Scratch<S>& scratch) const {
    iterate<S>(G, scratch);
    read<S>(dD, scratch.Y);
    scratch.Y *= S(scale);
    for (int i = steps; i-- > 0;) {
      step_backward<S>(scratch.X[std::size_t(i)], scratch);
      scratch.Y.swap(scratch.dX);
    }
    // X = G / (|G| + e): dG = (Y - G <X, Y> / |G|) / (|G| + e)
    const S norm = G.stableNorm(), divisor = norm + S(epsilon);
    if (norm > S(0)) {
      const S along = scratch.X[0].cwiseProduct(scratch.Y).sum();
      scratch.Y -= (along * (divisor / norm)) * scratch.X[0];
    }
    scratch.Y /= divisor;
    write<S>(scratch.Y, dG);
  }

 private:
  template <Scalar S>
  static void read(MatrixIn<S> from, Matrix<S>& to) {
    if (from.rows() > from.cols()) {
      to = from.transpose();
    } else {
      to = from;
    }
  }
  template <Scalar S>
  static void write(const Matrix<S>& from, MatrixOut<S> to) {
    if (to.rows() > to.cols()) {
      to = from.transpose();
    } else {
      to = from;
    }
  }

  template <Scalar S>
  static void iterate(MatrixIn<S> G, Scratch<S>& scratch) {
    read<S>(G, scratch.X[0]);
    scratch.X[0] /= G.stableNorm() + S(epsilon);
    for (std::size_t i = 0; i < steps; ++i) {
      const Matrix<S>& X = scratch.X[i];
      factors<S>(X, scratch);
      scratch.X[i + 1] = S(a) * X;
      Product<S>::add_ab(scratch.B, X, scratch.X[i + 1]);
    }
  }

  /// A = X X', B = b A + c A^2
  template <Scalar S>
  static void factors(const Matrix<S>& X, Scratch<S>& scratch) {
    scratch.A.setZero(X.rows(), X.rows());
    Product<S>::add_abt(X, X, scratch.A);
    ensure_shape(scratch.B, X.rows(), X.rows());
    Product<S>::ab(scratch.A, scratch.A, scratch.B);
    scratch.B = S(b) * scratch.A + S(c) * scratch.B;
  }

  /// dX = a Y + B Y + (b P + c (P A + A P)) X,  P = Y X' + X Y'
  template <Scalar S>
  static void step_backward(const Matrix<S>& X, Scratch<S>& scratch) {
    auto& [iterates, A, B, P, Q, Y, dX] = scratch;
    factors<S>(X, scratch);
    P.setZero(X.rows(), X.rows());
    Product<S>::add_abt(Y, X, P);
    Q = P.transpose();
    P += Q;
    Product<S>::ab(P, A, Q);
    P = S(b) * P + S(c) * (Q + Q.transpose());
    dX = S(a) * Y;
    Product<S>::add_ab(B, Y, dX);
    Product<S>::add_ab(P, X, dX);
  }
};

}  // namespace ttt
