// Products against loops: what the tests of all product headers share.
#pragma once

#include <functional>
#include <limits>
#include <vector>

#include "nn/operation_test.hpp"

namespace ttt::test {

struct Sizes {
  Index rows, depth, cols;
};

template <class S>
struct Operands {
  Matrix<S> A, B, C;

  Operands(const Sizes& s, bool transpose_a, bool transpose_b)
      : A(transpose_a ? random_matrix<S>(s.depth, s.rows, 1)
                      : random_matrix<S>(s.rows, s.depth, 1)),
        B(transpose_b ? random_matrix<S>(s.cols, s.depth, 2)
                      : random_matrix<S>(s.depth, s.cols, 2)),
        C(random_matrix<S>(s.rows, s.cols, 3)) {}

  /// kept C + sign A B (transposed where the constructor said so), in loops and in double.
  Matrix<double> by_loops(int kept, int sign, bool transpose_a, bool transpose_b) const {
    Matrix<double> result = kept * C.template cast<double>();
    const Index depth = transpose_a ? A.rows() : A.cols();
    for (Index j = 0; j < C.cols(); ++j)
      for (Index k = 0; k < depth; ++k) {
        const double b = sign * static_cast<double>(transpose_b ? B(j, k) : B(k, j));
        for (Index i = 0; i < C.rows(); ++i)
          result(i, j) += static_cast<double>(transpose_a ? A(k, i) : A(i, k)) * b;
      }
    return result;
  }
};

/// Outputs inside a larger matrix, whose other elements must stay.
template <class S>
void expect_equal(const std::function<void(MatrixIn<S>, MatrixIn<S>, MatrixOut<S>)>& form,
                  const std::vector<Sizes>& sizes, int kept, int sign, bool transpose_a,
                  bool transpose_b) {
  for (const Sizes& s : sizes) {
    const Operands<S> o(s, transpose_a, transpose_b);
    Matrix<S> C = o.C;
    if (kept == 0) C.setConstant(std::numeric_limits<S>::quiet_NaN());  // must not be read
    Matrix<S> frame = Matrix<S>::Constant(s.rows + 3, s.cols + 2, 5);
    form(o.A, o.B, C);
    EXPECT_LE(relative_error(C, o.by_loops(kept, sign, transpose_a, transpose_b)),
              tolerance::rounding<S>)
        << s.rows << " x " << s.depth << " x " << s.cols;

    auto inside = frame.block(1, 1, s.rows, s.cols);
    inside = o.C;
    form(o.A, o.B, inside);
    EXPECT_EQ(Matrix<S>(inside), C);
    EXPECT_TRUE((frame.topRows(1).array() == 5).all() && (frame.bottomRows(2).array() == 5).all());
    EXPECT_TRUE((frame.leftCols(1).array() == 5).all() && (frame.rightCols(1).array() == 5).all());
  }
}

}  // namespace ttt::test
