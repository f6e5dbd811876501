/// @file
/// Inner models of one's own: write f and its first-order gradient; exact adjoints of everything
/// follow. With dG_s, the adjoint of G_s = grad_W l(W; k_s, v_s), the outer loss owes
///   dW += d/de grad_W l(W + e dG_s; k_s, v_s) at e = 0, and likewise dk_s, dv_s, d_norm,
/// since mixed partials commute. So the user's gradient, run once on (value, tangent) matrices
/// (dual_matrix.hpp), is its own adjoint: about three times the cost of a first-order evaluation.
/// It has to be the gradient of a loss for that: no stopped gradients, no approximations.
/// The chunk is computed in the primal form, with every token's gradient and weights at hand:
/// 4 P n numbers for P weights a head and n tokens. Source of the tangent: Pearlmutter 1994, Fast
/// exact multiplication by the Hessian.
#pragma once

#include <limits>
#include <utility>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/small_product.hpp"
#include "ttt/inner/chunk.hpp"
#include "ttt/inner/dual_matrix.hpp"

namespace ttt {

/// The weights of one head as a model's code sees them; T is Matrix<S> or DualMatrix<S>.
template <class T, std::size_t N>
struct ModelWeights {
  std::array<T, N> W;  // [rows, cols]
  std::array<T, N> b;  // [rows, 1]; empty without a bias
};

/// M::Saved<T> is what `predict` leaves for `gradient`.
template <class M, class T>
concept FirstOrderCode = requires(const ModelWeights<T, M::weight_count>& w, const T& x,
                                  const T& dy, typename M::template Saved<T>& saved,
                                  const typename M::template Saved<T>& read,
                                  ModelWeights<T, M::weight_count>& dw, T& dx) {
  { M::predict(w, x, saved) } -> std::convertible_to<T>;
  M::gradient(w, read, dy, dw, dx);
};

/// An inner model that brings its own code, templated on the kind of matrix T. It has
///   T predict(const ModelWeights<T, N>& w, const T& x, Saved<T>& saved)
///   void gradient(const ModelWeights<T, N>& w, const Saved<T>& saved, const T& dy,
///                 ModelWeights<T, N>& dw, T& dx)
/// and Saved<T> beside what every inner model has; first_order_mlp.hpp is a whole one, to copy
/// from. x, dx, dy and the result are [f, m]: m tokens, a column each, that must not mix. dw is the
/// sum over them. `gradient` overwrites dw and dx. M::Output (output_rule.hpp) makes a loss and an
/// output of the result. Write types out (`const T da`): `auto` would keep Eigen's expressions.
template <class M>
concept FirstOrderInnerModel =
    InnerModel<M> && FirstOrderCode<M, Matrix<double>> && FirstOrderCode<M, DualMatrix<double>>;

/// The chunk of chunk.hpp for such a model. A model's code returns matrices by value, so every
/// token allocates memory: `step` of a layer with such a model does, too. The price of generality,
/// measured for the MLP above at f 64 in float: 5 to 10 times the dual form's time at n 1, 20 to 30
/// times at n 16. What a `Stack` (stack.hpp) can say should be one.
template <Scalar S, FirstOrderInnerModel M>
class FirstOrderForm {
  static constexpr std::size_t N = M::weight_count;
  template <class T>
  using Saved = typename M::template Saved<T>;
  using Weights = HeadWeights<S, N>;
  using ConstWeights = HeadWeights<const S, N>;

  /// The arguments and results of a model's code at one token.
  template <class T>
  struct Token {
    ModelWeights<T, N> w, dw;
    Saved<T> saved;
    T x, dx, y, dy;  // [f, 1]
  };

 public:
  /// What one chunk leaves in memory. A head's P weights stand in a column: W_0, b_0, W_1, ...
  struct Trace {
    Matrix<S> G, W_t;                      // [P, n] gradients; the weights that token t reads
    Matrix<S> E;                           // [n, n] zero below the diagonal
    Matrix<S> Y;                           // [f, n] f(q_t; W_t)
    std::vector<Saved<Matrix<S>>> answer;  // of f(q_t; W_t), for its gradient
    Index finite_tokens = 0;               // tokens before the first one that is not finite
    Token<Matrix<S>> token;                // scratch
    Vector<S> column;                      // scratch [P]
  };

  /// Scratch of `backward`, reused from chunk to chunk.
  struct Scratch {
    Matrix<S> dG, dW_t;  // [P, n]
    Matrix<S> dY;        // [f, n]
    Token<Matrix<S>> token;
    Token<DualMatrix<S>> dual;
    Vector<S> column;  // [P]
  };

  /// Writes the outputs O [f, n]. A token that is not finite leaves the outputs before it as they
  /// are, and makes its own, the later ones that read it, and what `carry` adds NaN.
  /// Throws `std::invalid_argument` where a result of the model's code has a wrong shape.
  static void forward(const Chunk<S, M>& chunk, MatrixOut<S> O, Trace& trace) {
    learn(chunk, trace);
    read_weights(chunk, trace);
    if (chunk.E.size() == 0) return answer(chunk, O, trace);
    trace.E = chunk.E.template triangularView<Eigen::Upper>();
    SmallProduct<S>::subtract_ab(trace.G, trace.E, trace.W_t);
    answer(chunk, O, trace);
    O.rightCols(O.cols() - trace.finite_tokens).setConstant(std::numeric_limits<S>::quiet_NaN());
  }

  /// One token of a stream: its gradient, times `rate`, is added to R, and the output reads R as
  /// the only carried weights of `chunk`, whose E is empty.
  static void step(const Chunk<S, M>& chunk, VectorIn<S> rate, Weights R, MatrixOut<S> z,
                   Trace& trace) {
    learn(chunk, trace);
    carry(trace, chunk.K, rate, R);
    read_weights(chunk, trace);
    answer(chunk, z, trace);
  }

  /// X <- X + sum_s e(s) G_s
  static void carry(Trace& trace, MatrixIn<S> K, VectorIn<S> e, Weights X) {
    trace.column.noalias() = trace.G * e;
    if (trace.finite_tokens < e.size())
      trace.column.setConstant(std::numeric_limits<S>::quiet_NaN());
    add(trace.column, K.rows(), X);
  }

  /// Adjoint of the `forward` that has just filled `trace`, and of the carries that followed it.
  static void backward(const Chunk<S, M>& chunk, std::span<const WrittenWeights<S, M>> written,
                       const Trace& trace, MatrixIn<S> dO, ChunkGradient<S, M>& out,
                       Scratch& scratch) {
    carry_backward(written, trace, scratch);  // first: dX may be dW, which changes below
    answer_backward(chunk, trace, dO, out, scratch);
    read_weights_backward(chunk, trace, out, scratch);
    learn_backward(chunk, out, scratch);
  }

  /// Z = what the model makes of the tokens X, both [f, n], at the weights W.
  static void predict(const ConstWeights& W, const HeadNorm<S>&, MatrixIn<S> X, Matrix<S>& Z,
                      Trace& trace) {
    Token<Matrix<S>>& token = trace.token;
    assign(W, token.w);
    token.x = X;
    Z = M::predict(token.w, token.x, token.saved);
    require_shape("FirstOrderForm: the result of predict", Z, X.rows(), X.cols());
  }

  /// Adds the gradient of the loss of one token k, v [f], in every weight, to G.
  static void add_gradient(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> k,
                           VectorIn<S> v, Weights G, Trace& trace) {
    learn({W, true, {}, norm, k, k, v, k}, trace);
    carry(trace, k, Vector<S>::Ones(1), G);
  }

 private:
  /// G_s = grad_W l(W; k_s, v_s)
  static void learn(const Chunk<S, M>& chunk, Trace& trace) {
    const Index f = chunk.K.rows(), n = chunk.K.cols();
    Token<Matrix<S>>& token = trace.token;
    assign(chunk.W, token.w);
    ensure_shape(trace.G, offset(N, f), n);
    ensure_shape(token.dy, f, 1);
    for (Index s = 0; s < n; ++s) {
      token.x = chunk.K.col(s);
      token.y = M::predict(token.w, token.x, token.saved);
      require_shape("FirstOrderForm: the result of predict", token.y, f, 1);
      M::Output::template gradient<S>(token.y, token.x, chunk.V.middleCols(s, 1), chunk.norm,
                                      token.dy);
      store_gradient(token, token.saved, trace.G, s);
    }
    set_poisoned_tokens_aside(trace);
  }

  /// W_t = a W + sum_j read_j(t) X_j, without what the chunk itself has learned
  static void read_weights(const Chunk<S, M>& chunk, Trace& trace) {
    ensure_shape(trace.W_t, trace.G.rows(), trace.G.cols());
    trace.W_t.setZero();
    if (chunk.reads_anchor) trace.W_t.colwise() += flat(chunk.W, chunk.K.rows(), trace.column);
    for (const CarriedWeights<S, M>& carried : chunk.carried)
      trace.W_t.noalias() +=
          flat(carried.X, chunk.K.rows(), trace.column) * carried.read.transpose();
  }

  /// y_t = f(q_t; W_t), and the outputs that are made of y and q
  static void answer(const Chunk<S, M>& chunk, MatrixOut<S> O, Trace& trace) {
    const Index f = chunk.Q.rows(), n = chunk.Q.cols();
    ensure_shape(trace.Y, f, n);
    if (std::ssize(trace.answer) < n) trace.answer.resize(static_cast<std::size_t>(n));
    for (Index t = 0; t < n; ++t) {
      assign(head(trace.W_t.col(t).data(), f), trace.token.w);
      trace.token.x = chunk.Q.col(t);
      trace.Y.col(t) = M::predict(trace.token.w, trace.token.x, trace.answer[std::size_t(t)]);
    }
    M::Output::template output<S>(trace.Y, chunk.Q, chunk.norm, O);
  }

  /// Forward: X += sum_s e(s) G_s.  Overwrites dG.
  static void carry_backward(std::span<const WrittenWeights<S, M>> written, const Trace& trace,
                             Scratch& scratch) {
    scratch.dG.setZero(trace.G.rows(), trace.G.cols());
    for (const WrittenWeights<S, M>& carry : written) {
      const Vector<S>& dX = flat(carry.dX, trace.Y.rows(), scratch.column);
      VectorOut<S>(carry.d_e).noalias() = trace.G.transpose() * dX;
      scratch.dG.noalias() += dX * carry.e.transpose();
    }
  }

  /// Forward: y_t = f(q_t; W_t), and the outputs are made of y and q.
  static void answer_backward(const Chunk<S, M>& chunk, const Trace& trace, MatrixIn<S> dO,
                              ChunkGradient<S, M>& out, Scratch& scratch) {
    const Index f = dO.rows(), n = dO.cols();
    Token<Matrix<S>>& token = scratch.token;
    ensure_shape(scratch.dY, f, n);
    ensure_shape(scratch.dW_t, trace.G.rows(), n);
    M::Output::template output_backward<S>(trace.Y, chunk.norm, dO, scratch.dY, out.dQ, out.norm);
    for (Index t = 0; t < n; ++t) {
      assign(head(trace.W_t.col(t).data(), f), token.w);
      token.dy = scratch.dY.col(t);
      store_gradient(token, trace.answer[std::size_t(t)], scratch.dW_t, t);
      out.dQ.col(t) += token.dx;
    }
  }

  /// Forward: W_t = a W + sum_j read_j(t) X_j - sum_{s<=t} E(s,t) G_s.  Completes dG.
  static void read_weights_backward(const Chunk<S, M>& chunk, const Trace& trace,
                                    ChunkGradient<S, M>& out, Scratch& scratch) {
    const Index f = chunk.K.rows();
    const Matrix<S>& dW_t = scratch.dW_t;
    for (std::size_t j = 0; j < chunk.carried.size(); ++j) {
      const CarriedWeights<S, M>& carried = chunk.carried[j];
      out.carried[j].d_read.noalias() = dW_t.transpose() * flat(carried.X, f, scratch.column);
      scratch.column.noalias() = dW_t * carried.read;
      add(scratch.column, f, out.carried[j].dX);
    }
    if (chunk.reads_anchor) {
      scratch.column = dW_t.rowwise().sum();
      add(scratch.column, f, out.dW);
    }
    out.dE.setZero();
    if (chunk.E.size() == 0) return;
    SmallProduct<S>::atb(trace.G, dW_t, out.dE);
    out.dE = -out.dE;
    out.dE.template triangularView<Eigen::StrictlyLower>().setZero();
    SmallProduct<S>::subtract_abt(dW_t, trace.E, scratch.dG);
  }

  /// Forward: G_s = grad_W l(W; k_s, v_s).  The tangent of grad l in the direction dG_s is what the
  /// outer loss owes to all that l reads. At the output rule, whose gradient has a symmetric
  /// derivative, the adjoint for a tangent is that tangent.
  static void learn_backward(const Chunk<S, M>& chunk, ChunkGradient<S, M>& out, Scratch& scratch) {
    const Index f = chunk.K.rows(), n = chunk.K.cols();
    Token<DualMatrix<S>>& token = scratch.dual;
    assign(chunk.W, token.w, &DualMatrix<S>::value);
    token.x.tangent.setZero(f, 1);
    for (auto* part : {&token.dy.value, &token.dy.tangent}) ensure_shape(*part, f, 1);
    out.dK.setZero();
    out.dV.setZero();
    for (Index s = 0; s < n; ++s) {
      assign(head(scratch.dG.col(s).data(), f), token.w, &DualMatrix<S>::tangent);
      token.x.value = chunk.K.col(s);
      token.y = M::predict(token.w, token.x, token.saved);
      const auto v = chunk.V.middleCols(s, 1);
      M::Output::template gradient<S>(token.y.value, token.x.value, v, chunk.norm, token.dy.value);
      M::Output::template gradient_backward<S>(
          token.y.value, token.x.value, v, chunk.norm, token.y.tangent, token.dy.tangent,
          out.dK.middleCols(s, 1), out.dV.middleCols(s, 1), out.norm);
      M::gradient(token.w, std::as_const(token.saved), token.dy, token.dw, token.dx);
      add_tangents(token.dw, out.dW);
      out.dK.col(s) += token.dx.tangent;
    }
  }

  /// In the product of G with E the NaN of a token would meet the zeros of earlier outputs, and
  /// 0 * NaN is NaN. So its column is zero here; `forward` and `carry` put the NaN back.
  static void set_poisoned_tokens_aside(Trace& trace) {
    const Index n = trace.G.cols();
    Index finite = 0;
    while (finite < n && trace.G.col(finite).allFinite()) ++finite;
    trace.G.rightCols(n - finite).setZero();
    trace.finite_tokens = finite;
  }

  /// Column t of `columns`: the model's gradient at `token`. Nobody but this checks its shapes.
  static void store_gradient(Token<Matrix<S>>& token, const Saved<Matrix<S>>& saved,
                             Matrix<S>& columns, Index t) {
    const Index f = token.dy.rows();
    M::gradient(token.w, saved, token.dy, token.dw, token.dx);
    require_shape("FirstOrderForm: dx of gradient", token.dx, f, 1);
    Weights to = head(columns.col(t).data(), f);
    for (std::size_t l = 0; l < N; ++l) {
      require_shape("FirstOrderForm: dw.W of gradient", token.dw.W[l], to.W[l].rows(),
                    to.W[l].cols());
      to.W[l] = token.dw.W[l];
      if (to.b[l].size() == 0) continue;
      require_shape("FirstOrderForm: dw.b of gradient", token.dw.b[l], to.b[l].rows(), 1);
      to.b[l] = token.dw.b[l];
    }
  }

  /// Where W_l stands in the column of a head; offset(N, f) is P.
  static Index offset(std::size_t l, Index f) {
    Index numbers = 0;
    for (std::size_t i = 0; i < l; ++i) {
      const WeightShape shape = M::weight_shape(i, f);
      numbers += shape.rows * (shape.cols + (shape.bias ? 1 : 0));
    }
    return numbers;
  }

  /// The weights that stand in P numbers from `column` on.
  template <class T>
  static HeadWeights<T, N> head(T* column, Index f) {
    const auto W = [&](std::size_t l) {
      const WeightShape shape = M::weight_shape(l, f);
      return typename HeadWeights<T, N>::MatrixMap(column + offset(l, f), shape.rows, shape.cols);
    };
    const auto b = [&](std::size_t l) {
      const WeightShape shape = M::weight_shape(l, f);
      return typename HeadWeights<T, N>::VectorMap(column + offset(l, f) + shape.rows * shape.cols,
                                                   shape.bias ? shape.rows : 0);
    };
    return [&]<std::size_t... L>(std::index_sequence<L...>) {
      return HeadWeights<T, N>{{W(L)...}, {b(L)...}};
    }
    (std::make_index_sequence<N>{});
  }

  /// Writes a head's weights into `column` [P].
  static const Vector<S>& flat(const ConstWeights& weights, Index f, Vector<S>& column) {
    column.resize(offset(N, f));
    copy_weights(weights, head(column.data(), f));
    return column;
  }

  /// X += column
  static void add(const Vector<S>& column, Index f, Weights X) {
    const ConstWeights weights = head(column.data(), f);
    for (std::size_t l = 0; l < N; ++l) {
      X.W[l] += weights.W[l];
      X.b[l] += weights.b[l];
    }
  }

  static void assign(const auto& from, ModelWeights<Matrix<S>, N>& to) {
    for (std::size_t l = 0; l < N; ++l) {
      to.W[l] = from.W[l];
      to.b[l] = from.b[l];
    }
  }
  static void assign(const auto& from, ModelWeights<DualMatrix<S>, N>& to,
                     Matrix<S> DualMatrix<S>::*part) {
    for (std::size_t l = 0; l < N; ++l) {
      to.W[l].*part = from.W[l];
      to.b[l].*part = from.b[l];
    }
  }

  static void add_tangents(const ModelWeights<DualMatrix<S>, N>& dw, Weights to) {
    for (std::size_t l = 0; l < N; ++l) {
      to.W[l] += dw.W[l].tangent;
      if (to.b[l].size() > 0) to.b[l] += dw.b[l].tangent;
    }
  }
};

/// How a first-order model runs.
template <Scalar S, FirstOrderInnerModel M>
struct ChunkFormOf<S, M> {
  using type = FirstOrderForm<S, M>;
};

}  // namespace ttt
