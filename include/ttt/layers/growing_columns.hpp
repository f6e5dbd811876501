/// @file
/// A matrix that grows by columns, the memory of attention. It is a plain value: a copy is
/// independent of it. What was written can be shared without a copy, because appending leaves it as
/// it is: only who writes below the columns that were shared first takes a copy.
#pragma once

#include <algorithm>
#include <memory>
#include <tuple>

#include "ttt/core/fields.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

template <Scalar S>
class GrowingColumns {
 public:
  using Shared = std::shared_ptr<const Matrix<S>>;

  GrowingColumns() : GrowingColumns(0, 0) {}
  /// Zero.
  GrowingColumns(Index rows, Index capacity)
      : storage_(std::make_shared<Matrix<S>>(Matrix<S>::Zero(rows, capacity))) {}
  GrowingColumns(const GrowingColumns& other)
      : storage_(other.storage_ ? std::make_shared<Matrix<S>>(*other.storage_) : nullptr) {}
  GrowingColumns(GrowingColumns&&) noexcept = default;
  GrowingColumns& operator=(const GrowingColumns& other) { return *this = GrowingColumns(other); }
  GrowingColumns& operator=(GrowingColumns&&) noexcept = default;
  ~GrowingColumns() = default;

  Index rows() const { return storage_->rows(); }
  Index capacity() const { return storage_->cols(); }
  const Matrix<S>& matrix() const { return *storage_; }

  /// The columns [0, columns) as they are now, for as long as the result lives. The others may
  /// change.
  Shared share(Index columns) {
    shared_ = std::max(shared_, columns);
    return storage_;
  }

  /// Room to write the columns [begin, begin + count).
  auto write(Index begin, Index count) {
    if (begin < shared_) detach();
    return storage_->middleCols(begin, count);
  }

  /// Everything, to be changed at will.
  Matrix<S>& mutable_matrix() {
    if (shared_ > 0) detach();
    return *storage_;
  }

  /// Keeps the columns [0, kept), and makes `capacity` of them; the others are zero.
  void resize(Index kept, Index capacity) {
    if (capacity == storage_->cols()) {
      write(kept, capacity - kept).setZero();
      return;
    }
    auto resized = std::make_shared<Matrix<S>>(rows(), capacity);
    resized->leftCols(kept) = storage_->leftCols(kept);
    resized->rightCols(capacity - kept).setZero();
    storage_ = std::move(resized);
    shared_ = 0;
  }

  static auto fields(auto& self) { return std::tuple(field("", all(self))); }

 private:
  static Matrix<S>& all(GrowingColumns& self) { return self.mutable_matrix(); }
  static const Matrix<S>& all(const GrowingColumns& self) { return self.matrix(); }

  void detach() {
    storage_ = std::make_shared<Matrix<S>>(*storage_);
    shared_ = 0;
  }

  std::shared_ptr<Matrix<S>> storage_;  // null after a move
  Index shared_ = 0;                    // columns below this may have other readers
};

}  // namespace ttt
