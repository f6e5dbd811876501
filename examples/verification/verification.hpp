/// @file
/// Proof that the library reproduces values made elsewhere: a reference file holds parameters,
/// inputs, outputs, intermediate values and gradients; everything stored is recomputed, whole and
/// in pieces cut at random, and compared.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

#include "ttt/core/fields.hpp"
#include "ttt/io/safetensors.hpp"
#include "ttt/io/tensor_names.hpp"

namespace ttt::verification {

/// Which constants the inner gradient of TTT-MLP uses: those of the official code are rounded.
/// `automatic`: as the file says, rounded for values made by the official code.
enum class Gelu { automatic, exact, rounded };

/// The worst comparison of a group of tensors (outputs, gradients, ...).
struct GroupResult {
  double error = 0;  // max |actual - expected| / max |expected|
  double tolerance = 0;
  std::string tensor;
};

struct FileResult {
  std::string file, kind;
  std::map<std::string, GroupResult> groups;
  std::set<std::string> checked;

  bool pass() const;
  /// The group that comes nearest to its tolerance, or furthest beyond it.
  const GroupResult& worst() const;
  nlohmann::json json() const;
};

/// The file cannot be read, or its kind or class is not supported.
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Recomputes everything that `path` stores, in the number type `S` (float or double).
/// Throws `Unsupported` or `std::exception` with one sentence.
template <class S>
FileResult verify_file(const std::string& path, Gelu gelu = Gelu::automatic);

/// A reference file that is being checked: gives inputs, takes results, and knows at the end
/// whether anything stored was left unchecked.
class ReferenceFile {
 public:
  /// `single`: tolerances of float instead of double.
  ReferenceFile(const std::string& path, Gelu gelu, bool single);

  const SafetensorsFile& file() const { return file_; }
  const std::string& kind() const { return result_.kind; }
  bool rounded_gelu() const { return rounded_gelu_; }
  std::string text(const std::string& key) const;  // metadata; throws where it is absent
  Index number(const std::string& key) const;
  nlohmann::json config() const;

  /// An input, n x (product of the other sizes).
  template <class S>
  Matrix<S> input(const std::string& name) {
    used_.insert(name);
    return file_.matrix<S>(name);
  }
  Index size(const std::string& name, std::size_t dimension) const {
    return file_.shape(name).at(dimension);
  }
  std::vector<std::int32_t> ids();  // input_ids, B sequences one after another

  /// Compares `actual` with the stored tensor, where there is one. `variant` says how it was made.
  template <class S>
  void compare(const std::string& name, const Matrix<S>& actual, std::string_view variant = {}) {
    if (file_.contains(name))
      compare_double(name, actual.template cast<double>(), std::string(variant));
  }

  /// Compares every tensor of a struct with the stored `prefix + name`.
  template <class T>
  void compare_fields(const std::string& prefix, const T& value, std::string_view variant = {},
                      TensorNames names = TensorNames::ttt) {
    for_each_tensor(
        [&](const TensorInfo& info, const auto& tensor) {
          using S = typename std::remove_cvref_t<decltype(tensor)>::Scalar;
          compare(prefix + checkpoint_name(names, info.name), Matrix<S>(tensor), variant);
        },
        value);
  }

  void use(const std::string& name) { used_.insert(name); }

  /// Throws `std::runtime_error` that names a stored tensor which nothing has read or compared.
  FileResult finish();

 private:
  void compare_double(const std::string& name, const Matrix<double>& actual,
                      const std::string& variant);
  double tolerance(const std::string& group) const;

  SafetensorsFile file_;
  FileResult result_;
  bool rounded_gelu_ = false, mlp_ = false, single_ = false;
  std::set<std::string> used_;
};

/// Sizes of the random pieces that `tokens` are cut into; every call with the same seed agrees.
std::vector<Index> random_pieces(Index tokens, std::uint64_t seed);

// One function for each family of kinds.
template <class S>
void verify_inner_loop(ReferenceFile& reference);
template <class S>
void verify_theorem1(ReferenceFile& reference);
template <class S>
void verify_theorem2(ReferenceFile& reference);
template <class S>
void verify_deltanet(ReferenceFile& reference);
template <class S>
void verify_layer(ReferenceFile& reference);
template <class S>
void verify_language_model(ReferenceFile& reference);
template <class S>
void verify_decode(ReferenceFile& reference);
template <class S>
void verify_hugging_face(ReferenceFile& reference);

}  // namespace ttt::verification
