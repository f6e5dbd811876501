/// @file
/// AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), in the order of torch.optim.AdamW.
/// At update k = 1, 2, ..., with gradient g and learning rate r:
///   p = (1 - r w) p
///   m = m + (1 - b1) (g - m)
///   v = b2 v + (1 - b2) g g
///   p = p - r / (1 - b1^k) m / (sqrt(v / (1 - b2^k)) + eps)
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <tuple>

#include "ttt/core/check.hpp"
#include "ttt/core/fields.hpp"
#include "ttt/core/parallel.hpp"

namespace ttt {

struct AdamWConfig {
  double beta1 = 0.9;         // b1
  double beta2 = 0.95;        // b2
  double epsilon = 1e-8;      // eps
  double weight_decay = 0.1;  // w
  /// Which tensors decay, by name, of those whose field does; empty: all, as in the recipe of the
  /// TTT paper.
  std::function<bool(const std::string&)> decays = {};

  /// Throws `std::invalid_argument` where a number is out of its range.
  void validate() const {
    require(beta1 >= 0 && beta1 < 1, "AdamWConfig: beta1 is ", beta1, ", expected 0 <= beta1 < 1");
    require(beta2 >= 0 && beta2 < 1, "AdamWConfig: beta2 is ", beta2, ", expected 0 <= beta2 < 1");
    require(epsilon >= 0, "AdamWConfig: epsilon is ", epsilon, ", expected 0 or more");
    require(weight_decay >= 0, "AdamWConfig: weight_decay is ", weight_decay,
            ", expected 0 or more");
  }
};

template <HasFields Parameters>
class AdamW {
 public:
  /// What must be saved to continue (`save_state`).
  struct State {
    Parameters first_moment, second_moment;  // m, v
    Index updates = 0;                       // k

    static auto fields(auto& self) {
      return std::tuple(field("first_moment", self.first_moment),
                        field("second_moment", self.second_moment), field("updates", self.updates));
    }
  };

  /// Zero moments, in the shapes of `parameters`.
  explicit AdamW(const Parameters& parameters, AdamWConfig config = {})
      : config_(std::move(config)), state_{zeros_like(parameters), zeros_like(parameters), 0} {
    config_.validate();
  }

  const AdamWConfig& config() const { return config_; }
  const State& state() const { return state_; }
  State& state() { return state_; }

  /// One update. Throws `std::invalid_argument`, and changes nothing, where a tensor of `gradient`
  /// has another shape than its parameter or the learning rate is negative or not finite.
  void step(Parameters& parameters, const Parameters& gradient, double learning_rate) {
    require(std::isfinite(learning_rate) && learning_rate >= 0, "AdamW.step: learning_rate is ",
            learning_rate, ", expected a finite number, 0 or more");
    for_each_tensor(
        [](const TensorInfo& info, const auto& p, const auto& g, const auto& m, const auto& v) {
          require_shape(("AdamW.step: gradient of " + info.name).c_str(), g, p.rows(), p.cols());
          require_shape(("AdamW.step: moment of " + info.name).c_str(), m, p.rows(), p.cols());
          require_shape(("AdamW.step: moment of " + info.name).c_str(), v, p.rows(), p.cols());
        },
        parameters, gradient, state_.first_moment, state_.second_moment);
    ++state_.updates;
    for_each_tensor(
        [&](const TensorInfo& info, auto& p, const auto& g, auto& m, auto& v) {
          const bool decays = info.decays && (!config_.decays || config_.decays(info.name));
          const double decay = decays ? 1 - learning_rate * config_.weight_decay : 1;
          update(p, g, m, v, learning_rate, decay);
        },
        parameters, gradient, state_.first_moment, state_.second_moment);
  }

 private:
  /// Elements that are updated together: p, g, m and v of a block stay in the second-level cache.
  static constexpr Index block = 8192;

  template <class Tensor>
  void update(Tensor& parameter, const Tensor& gradient, Tensor& first, Tensor& second,
              double learning_rate, double decay) const {
    using S = typename Tensor::Scalar;
    using Block = Eigen::Array<S, Eigen::Dynamic, 1>;
    const auto k = static_cast<double>(state_.updates);
    const S rate = static_cast<S>(learning_rate / (1 - std::pow(config_.beta1, k)));
    const S root = static_cast<S>(std::sqrt(1 - std::pow(config_.beta2, k)));
    const S rest1 = static_cast<S>(1 - config_.beta1), rest2 = static_cast<S>(1 - config_.beta2);
    const S b2 = static_cast<S>(config_.beta2), epsilon = static_cast<S>(config_.epsilon);
    const S keep = static_cast<S>(decay);
    parallel_blocks(parameter.size(), block, [&](Index begin, Index size) {
      Eigen::Map<Block> p(parameter.data() + begin, size), m(first.data() + begin, size),
          v(second.data() + begin, size);
      const Eigen::Map<const Block> g(gradient.data() + begin, size);
      m += rest1 * (g - m);
      v = b2 * v + rest2 * g.square();
      p = keep * p - rate * m / (v.sqrt() / root + epsilon);
    });
  }

  AdamWConfig config_;
  State state_;
};

}  // namespace ttt
