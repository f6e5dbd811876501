/// @file
/// The weights that decoding reads whole for every token, packed side by side for that: what a
/// token costs is the time of reading them from memory.
///
///     const DecodeWeights weights(model, WeightFormat::int8, threads);
///     model.step(id, state, logits, workspace, {.decode_weights = &weights});
///
/// The model's own weights become the numbers that the format holds, so that whole texts, batches
/// and single tokens compute with the same ones.
#pragma once

#include <algorithm>
#include <concepts>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "ttt/core/fields.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/nn/packed_matrix.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ttt {

/// One of several products with the same token.
struct PackedProduct {
  const PackedMatrix* weight;
  float* y;  // [out]
};

class DecodeWeights {
 public:
  /// Packs every float tensor of `model.parameters()` that its fields call `streamed`, in their
  /// order; the model keeps its own. The model may be moved afterwards, but neither destroyed nor
  /// changed: a copy of it, one that is trained on or loaded anew, needs DecodeWeights of its own.
  /// With more than one thread, `step` uses them (with OpenMP only): they meet at every product, so
  /// they help where each has a core of its own, and cost where not. Throws `std::invalid_argument`
  /// where there is no such tensor, or where one is not finite.
  template <class Model>
  DecodeWeights(Model& model, WeightFormat format, Index threads = 1)
      : format_(format), threads_(threads) {
    require(threads > 0, "DecodeWeights: threads is ", threads, ", expected a positive number");
    Index words = 0;
    for_each_streamed(model, [&](const TensorInfo& info, const Matrix<float>& weight) {
      require(weight.allFinite(), "DecodeWeights: ", info.name, " is not finite");
      words += aligned(PackedMatrix::words(format, weight.rows(), weight.cols()));
    });
    require(words > 0, "DecodeWeights: the model has no float weights to pack");
    memory_ = allocate(words);
    words = 0;
    for_each_streamed(model, [&](const TensorInfo&, Matrix<float>& weight) {
      const PackedMatrix& packed =
          entries_.emplace_back(weight.data(), PackedMatrix(format, weight, memory_.get() + words))
              .matrix;
      words += aligned(PackedMatrix::words(format, weight.rows(), weight.cols()));
      bytes_ += packed.bytes();
      if (format == WeightFormat::float32) return;
      for (Index j = 0; j < weight.cols(); ++j)
        for (Index i = 0; i < weight.rows(); ++i) weight(i, j) = packed.value(i, j);
    });
    std::sort(entries_.begin(), entries_.end());
  }

  WeightFormat format() const { return format_; }
  Index threads() const { return threads_; }
  /// Bytes of all weights: what one token reads.
  Index bytes() const { return bytes_; }

  /// Parts in which `step` does independent work that reads `bytes`: one for each thread, but none
  /// that is over before its thread is awake.
  Index parts(Index bytes) const { return std::clamp<Index>(bytes / least_bytes, 1, threads_); }

  /// The packed form of the tensor at `data`; null where there is none.
  const PackedMatrix* find(const float* data) const {
    const auto found = std::lower_bound(entries_.begin(), entries_.end(), data);
    return found != entries_.end() && found->data == data ? &found->matrix : nullptr;
  }

  /// y = W' x for each of `products`. Threads share their outputs in equal, contiguous parts.
  void multiply(const float* x, std::span<const PackedProduct> products) const {
    Index panels = 0, bytes = 0;
    for (const PackedProduct& product : products) {
      panels += product.weight->panels();
      bytes += product.weight->bytes();
    }
    parallel_parts(panels, parts(bytes), [&](Index begin, Index size, Index) {
      Index end = begin + size;
      for (const auto& [weight, y] : products) {
        const Index count = weight->panels();
        const Index first = std::clamp<Index>(begin, 0, count);
        weight->multiply(x, y, first, std::clamp<Index>(end, 0, count) - first);
        begin -= count;
        end -= count;
      }
    });
  }

 private:
  struct Entry {
    const float* data;
    PackedMatrix matrix;
    Entry(const float* address, const PackedMatrix& packed) : data(address), matrix(packed) {}
    friend bool operator<(const Entry& a, const Entry& b) { return std::less<>()(a.data, b.data); }
    friend bool operator<(const Entry& a, const float* b) { return std::less<>()(a.data, b); }
  };

  /// A thread's part that takes longer than waking the thread.
  static constexpr Index least_bytes = Index{1} << 18;
  static constexpr std::size_t cache_line = 64, huge_page = std::size_t{1} << 21;

  struct Free {
    std::align_val_t alignment;
    void operator()(std::uint32_t* memory) const { ::operator delete(memory, alignment); }
  };
  using Memory = std::unique_ptr<std::uint32_t[], Free>;

  /// In huge pages where the system has them: a tenth to a third faster than pages of 4 KiB.
  static Memory allocate(Index words) {
    const std::size_t bytes = sizeof(std::uint32_t) * static_cast<std::size_t>(words);
    const std::align_val_t alignment{bytes < huge_page ? cache_line : huge_page};
    Memory memory(static_cast<std::uint32_t*>(::operator new(bytes, alignment)), Free{alignment});
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= huge_page) static_cast<void>(madvise(memory.get(), bytes, MADV_HUGEPAGE));
#endif
    return memory;
  }

  static Index aligned(Index words) {
    constexpr Index line = cache_line / sizeof(std::uint32_t);
    return (words + line - 1) / line * line;
  }

  template <class Model, class Body>
  static void for_each_streamed(Model& model, Body&& body) {
    for_each_tensor(
        [&](const TensorInfo& info, auto& tensor) {
          if constexpr (std::same_as<std::remove_cvref_t<decltype(tensor)>, Matrix<float>>) {
            if (info.streamed) body(info, tensor);
          }
        },
        model.parameters());
  }

  WeightFormat format_;
  Index threads_, bytes_ = 0;
  Memory memory_{nullptr, Free{std::align_val_t{cache_line}}};
  std::vector<Entry> entries_;  // by address
};

}  // namespace ttt
