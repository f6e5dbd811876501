/// @file
/// Reverse-mode differentiation for tests: a formula is written once, as the paper has it, on
/// numbers that remember how they were made, and the chain rule does the rest.
///
///     Tape tape;                                      // records while it lives
///     Matrix<TapeNumber> X = tape.variables(A);       // A a matrix of double
///     tape.differentiate(X.squaredNorm());
///     Matrix<double> dX = tape.gradient(X);           // 2 A
///
/// Numbers work as Eigen scalars. For tiny sizes: every operation is a node of the tape.
#pragma once

#include <cmath>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/types.hpp"

namespace ttt::test {

/// A double and its place on the tape; that of constants is 0, since Eigen may clear numbers by
/// clearing their memory.
struct TapeNumber {
  double value = 0;
  Index place = 0;

  TapeNumber() = default;
  TapeNumber(double constant) : value(constant) {}
  TapeNumber(double result, Index node) : value(result), place(node) {}
};

/// One lives at a time in a thread.
class Tape {
 public:
  Tape() {
    require(active() == nullptr, "Tape: another one is alive");
    active() = this;
  }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape() { active() = nullptr; }

  /// Numbers that gradients are asked of.
  template <class A>
  auto variables(const Eigen::MatrixBase<A>& values) {
    using Tracked =
        Eigen::Matrix<TapeNumber, A::RowsAtCompileTime, A::ColsAtCompileTime, Eigen::ColMajor>;
    Tracked result(values.rows(), values.cols());
    for (Index j = 0; j < values.cols(); ++j)
      for (Index i = 0; i < values.rows(); ++i) result(i, j) = {values(i, j), add({})};
    return result;
  }

  /// Backward through all that was recorded, from the loss L.
  void differentiate(const TapeNumber& loss) {
    adjoints_.assign(nodes_.size(), 0);
    if (loss.place > 0) adjoints_[std::size_t(loss.place)] = 1;
    for (std::size_t i = nodes_.size(); i-- > 0;)
      for (const Parent& parent : nodes_[i].parents)
        if (parent.place > 0) adjoints_[std::size_t(parent.place)] += parent.slope * adjoints_[i];
  }

  /// dL/dX, after `differentiate`; zero for constants.
  template <class X>
  Matrix<double> gradient(const Eigen::MatrixBase<X>& numbers) const {
    Matrix<double> result = Matrix<double>::Zero(numbers.rows(), numbers.cols());
    for (Index j = 0; j < numbers.cols(); ++j)
      for (Index i = 0; i < numbers.rows(); ++i)
        if (const Index place = numbers(i, j).place; place > 0)
          result(i, j) = adjoints_[std::size_t(place)];
    return result;
  }

  /// The number `value`, made of a and b, with its derivatives in them.
  static TapeNumber record(double value, const TapeNumber& a, double in_a, const TapeNumber& b = {},
                           double in_b = 0) {
    if (a.place == 0 && b.place == 0) return value;
    require(active() != nullptr, "Tape: a variable is used after its tape is gone");
    return {value, active()->add({{{a.place, in_a}, {b.place, in_b}}})};
  }

 private:
  struct Parent {
    Index place = 0;
    double slope = 0;
  };
  struct Node {
    Parent parents[2];
  };

  static Tape*& active() {
    static thread_local Tape* tape = nullptr;
    return tape;
  }
  Index add(const Node& node) {
    nodes_.push_back(node);
    return std::ssize(nodes_) - 1;
  }

  std::vector<Node> nodes_{Node()};  // the first is the constants'
  std::vector<double> adjoints_;
};

inline TapeNumber operator-(const TapeNumber& a) { return Tape::record(-a.value, a, -1); }
inline TapeNumber operator+(const TapeNumber& a, const TapeNumber& b) {
  return Tape::record(a.value + b.value, a, 1, b, 1);
}
inline TapeNumber operator-(const TapeNumber& a, const TapeNumber& b) {
  return Tape::record(a.value - b.value, a, 1, b, -1);
}
inline TapeNumber operator*(const TapeNumber& a, const TapeNumber& b) {
  return Tape::record(a.value * b.value, a, b.value, b, a.value);
}
inline TapeNumber operator/(const TapeNumber& a, const TapeNumber& b) {
  const double quotient = a.value / b.value;
  return Tape::record(quotient, a, 1 / b.value, b, -quotient / b.value);
}
inline TapeNumber& operator+=(TapeNumber& a, const TapeNumber& b) { return a = a + b; }
inline TapeNumber& operator-=(TapeNumber& a, const TapeNumber& b) { return a = a - b; }
inline TapeNumber& operator*=(TapeNumber& a, const TapeNumber& b) { return a = a * b; }
inline TapeNumber& operator/=(TapeNumber& a, const TapeNumber& b) { return a = a / b; }

inline TapeNumber sqrt(const TapeNumber& a) {
  const double root = std::sqrt(a.value);
  return Tape::record(root, a, 0.5 / root);
}
inline TapeNumber exp(const TapeNumber& a) {
  const double power = std::exp(a.value);
  return Tape::record(power, a, power);
}
inline TapeNumber log(const TapeNumber& a) {
  return Tape::record(std::log(a.value), a, 1 / a.value);
}

inline TapeNumber sin(const TapeNumber& a) {
  return Tape::record(std::sin(a.value), a, std::cos(a.value));
}
inline TapeNumber cos(const TapeNumber& a) {
  return Tape::record(std::cos(a.value), a, -std::sin(a.value));
}
inline TapeNumber tanh(const TapeNumber& a) {
  const double t = std::tanh(a.value);
  return Tape::record(t, a, 1 - t * t);
}

/// Comparisons see values: the derivative is that of the branch taken.
inline bool operator<(const TapeNumber& a, const TapeNumber& b) { return a.value < b.value; }
inline bool operator>(const TapeNumber& a, const TapeNumber& b) { return a.value > b.value; }
inline bool operator==(const TapeNumber& a, const TapeNumber& b) { return a.value == b.value; }
inline bool operator!=(const TapeNumber& a, const TapeNumber& b) { return a.value != b.value; }

}  // namespace ttt::test

namespace Eigen {

template <>
struct NumTraits<ttt::test::TapeNumber> : NumTraits<double> {
  using Real = ttt::test::TapeNumber;
  using NonInteger = ttt::test::TapeNumber;
  using Nested = ttt::test::TapeNumber;
  enum { RequireInitialization = 1, ReadCost = 1, AddCost = 3, MulCost = 3 };
};

}  // namespace Eigen
