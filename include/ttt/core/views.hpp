/// @file
/// How functions take matrices: views of memory that is somebody else's. They are to the library
/// what Eigen::Ref is to Eigen, but hold no matrix that they might have to fill: an Eigen::Ref of
/// constants brings such code along for every type of argument, a tenth of the time that a program
/// with one layer took to compile.
#pragma once

#include <type_traits>
#include <utility>

#include "ttt/core/types.hpp"

namespace ttt {

namespace detail {

/// Numbers of type S in memory, those of a column one after another.
template <class Expression, class S>
concept ColumnsInMemory = std::same_as<typename Expression::Scalar, S> &&
                              (int{Expression::Flags} & int{Eigen::DirectAccessBit}) != 0 &&
                          (int{Expression::Flags} & int{Eigen::RowMajorBit}) == 0 &&
                          int{Expression::InnerStrideAtCompileTime} == 1;

/// The same in one column, or in a row that lies like one.
template <class Expression, class S>
concept VectorInMemory = std::same_as<typename Expression::Scalar, S> &&
                         bool{Expression::IsVectorAtCompileTime} &&
                         (int{Expression::Flags} & int{Eigen::DirectAccessBit}) != 0 &&
                         int{Expression::InnerStrideAtCompileTime} == 1;

/// What may be written to although it is passed as a constant: blocks and maps.
template <class Expression>
concept WritableView = (int{Expression::Flags} & int{Eigen::LvalueBit}) != 0 &&
                       !std::is_base_of_v<Eigen::PlainObjectBase<Expression>, Expression>;

template <class M>
using WithStride = Eigen::Map<M, 0, Eigen::OuterStride<>>;

}  // namespace detail

/// A matrix to read. Any column-major matrix, block of columns or rows, or map binds without a
/// copy. Anything else of the same scalar type (a sum, a transpose, a row-major matrix) is
/// evaluated first, for as long as the call that it is an argument of.
template <class S>
class MatrixView : public detail::WithStride<const Matrix<S>> {
 public:
  using Map = detail::WithStride<const Matrix<S>>;

  template <detail::ColumnsInMemory<S> Expression>
  MatrixView(const Eigen::DenseBase<Expression>& matrix)  // NOLINT(google-explicit-constructor)
      : Map(matrix.derived().data(), matrix.rows(), matrix.cols(),
            Eigen::OuterStride<>(matrix.derived().outerStride())) {}

  template <class Expression>
  requires(std::same_as<typename Expression::Scalar, S> && !detail::ColumnsInMemory<Expression, S>)
      MatrixView(
          const Eigen::DenseBase<Expression>& expression,  // NOLINT(google-explicit-constructor)
          Matrix<S>&& memory = Matrix<S>())
      : MatrixView(memory = expression.derived()) {}
};

/// A vector to read, likewise.
template <class S>
class VectorView : public Eigen::Map<const Vector<S>> {
 public:
  using Map = Eigen::Map<const Vector<S>>;

  template <detail::VectorInMemory<S> Expression>
  VectorView(const Eigen::DenseBase<Expression>& vector)  // NOLINT(google-explicit-constructor)
      : Map(vector.derived().data(), vector.size()) {}

  template <class Expression>
  requires(std::same_as<typename Expression::Scalar, S> && !detail::VectorInMemory<Expression, S>)
      VectorView(
          const Eigen::DenseBase<Expression>& expression,  // NOLINT(google-explicit-constructor)
          Vector<S>&& memory = Vector<S>())
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
  MatrixOut(Eigen::PlainObjectBase<Plain>& matrix)  // NOLINT(google-explicit-constructor)
      : Map(matrix.data(), matrix.rows(), matrix.cols(),
            Eigen::OuterStride<>(matrix.outerStride())) {}

  template <detail::ColumnsInMemory<S> Expression>
  requires detail::WritableView<Expression> MatrixOut(
      const Eigen::DenseBase<Expression>& matrix)  // NOLINT(google-explicit-constructor)
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
  VectorOut(Eigen::PlainObjectBase<Plain>& vector)  // NOLINT(google-explicit-constructor)
      : Map(vector.data(), vector.size()) {}

  template <detail::VectorInMemory<S> Expression>
  requires detail::WritableView<Expression> VectorOut(
      const Eigen::DenseBase<Expression>& vector)  // NOLINT(google-explicit-constructor)
      : Map(vector.const_cast_derived().data(), vector.size()) {}
};

/// Read-only arguments.
template <class S>
using MatrixIn = const MatrixView<S>&;
template <class S>
using VectorIn = const VectorView<S>&;

}  // namespace ttt
