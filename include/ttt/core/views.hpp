/// @file
/// How functions take matrices: views of memory that is somebody else's. They are to the library
/// what Eigen::Ref is to Eigen, but hold no matrix that they might have to fill: an Eigen::Ref of
/// constants brings such code along for every type of argument (a tenth of the time that a program
/// with one layer took to compile) and for every call (a tenth of a step of a small LSTM).
#pragma once

#include <concepts>
#include <type_traits>

#include "ttt/core/types.hpp"

namespace ttt {

namespace detail {

template <class Expression>
inline constexpr bool in_memory = (int{Expression::Flags} & int{Eigen::DirectAccessBit}) != 0;

/// Numbers of type S in memory, neighbours side by side.
template <class Expression, class S>
concept NumbersInMemory = std::same_as<typename Expression::Scalar, S> && in_memory<Expression> &&
                          int{Expression::InnerStrideAtCompileTime} == 1;

/// Columns whose numbers lie one after another.
template <class Expression, class S>
concept ColumnsInMemory = NumbersInMemory<Expression, S> &&
                          (int{Expression::Flags} & int{Eigen::RowMajorBit}) == 0;

/// One such column, or a row that lies like one.
template <class Expression, class S>
concept VectorInMemory = NumbersInMemory<Expression, S> && bool{Expression::IsVectorAtCompileTime};

template <class Expression, class S>
concept MatrixToEvaluate =
    std::same_as<typename Expression::Scalar, S> && !ColumnsInMemory<Expression, S>;

template <class Expression, class S>
concept VectorToEvaluate =
    std::same_as<typename Expression::Scalar, S> && !VectorInMemory<Expression, S>;

/// What is written to even as a constant: blocks and maps.
template <class Expression>
concept Writable = (int{Expression::Flags} & int{Eigen::LvalueBit}) != 0 &&
                   !std::is_base_of_v<Eigen::PlainObjectBase<Expression>, Expression>;

template <class M>
using WithStride = Eigen::Map<M, 0, Eigen::OuterStride<>>;

}  // namespace detail

// NOLINTBEGIN(google-explicit-constructor): arguments become views by themselves.

/// A matrix to read. Any column-major matrix, block of columns or rows, or map binds without a
/// copy. Anything else of the same scalar type (a sum, a transpose, a row-major matrix) is
/// evaluated first, for as long as the call that it is an argument of.
template <class S>
class MatrixView : public detail::WithStride<const Matrix<S>> {
 public:
  using Map = detail::WithStride<const Matrix<S>>;

  template <detail::ColumnsInMemory<S> Expression>
  MatrixView(const Eigen::DenseBase<Expression>& matrix)
      : Map(matrix.derived().data(), matrix.rows(), matrix.cols(),
            Eigen::OuterStride<>(matrix.derived().outerStride())) {}

  /// `memory` is a temporary, which lives until the end of the caller's statement.
  template <detail::MatrixToEvaluate<S> Expression>
  MatrixView(const Eigen::DenseBase<Expression>& expression, Matrix<S>&& memory = Matrix<S>())
      : MatrixView(memory = expression.derived()) {}
};

/// A vector to read, likewise.
template <class S>
class VectorView : public Eigen::Map<const Vector<S>> {
 public:
  using Map = Eigen::Map<const Vector<S>>;

  template <detail::VectorInMemory<S> Expression>
  VectorView(const Eigen::DenseBase<Expression>& vector)
      : Map(vector.derived().data(), vector.size()) {}

  template <detail::VectorToEvaluate<S> Expression>
  VectorView(const Eigen::DenseBase<Expression>& expression, Vector<S>&& memory = Vector<S>())
      : VectorView(memory = expression.derived()) {}
};

/// A matrix that is written in place: a column-major one, a block of its columns or rows, a map.
template <class S>
class MatrixOut : public detail::WithStride<Matrix<S>> {
 public:
  using Map = detail::WithStride<Matrix<S>>;
  using Map::operator=;

  MatrixOut(const MatrixOut&) = default;
  /// Copies the numbers, as in all of Eigen.
  MatrixOut& operator=(const MatrixOut&) = default;

  template <detail::ColumnsInMemory<S> Plain>
  MatrixOut(Eigen::PlainObjectBase<Plain>& matrix)
      : Map(matrix.data(), matrix.rows(), matrix.cols(),
            Eigen::OuterStride<>(matrix.outerStride())) {}

  template <detail::ColumnsInMemory<S> Expression>
  requires detail::Writable<Expression> MatrixOut(const Eigen::DenseBase<Expression>& matrix)
      : Map(matrix.const_cast_derived().data(), matrix.rows(), matrix.cols(),
            Eigen::OuterStride<>(matrix.derived().outerStride())) {}
};

/// A vector that is written in place, likewise.
template <class S>
class VectorOut : public Eigen::Map<Vector<S>> {
 public:
  using Map = Eigen::Map<Vector<S>>;
  using Map::operator=;

  VectorOut(const VectorOut&) = default;
  /// Copies the numbers, as in all of Eigen.
  VectorOut& operator=(const VectorOut&) = default;

  template <detail::VectorInMemory<S> Plain>
  VectorOut(Eigen::PlainObjectBase<Plain>& vector) : Map(vector.data(), vector.size()) {}

  template <detail::VectorInMemory<S> Expression>
  requires detail::Writable<Expression> VectorOut(const Eigen::DenseBase<Expression>& vector)
      : Map(vector.const_cast_derived().data(), vector.size()) {}
};

// NOLINTEND(google-explicit-constructor)

/// Read-only arguments.
template <class S>
using MatrixIn = const MatrixView<S>&;
template <class S>
using VectorIn = const VectorView<S>&;

}  // namespace ttt
