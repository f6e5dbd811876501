/// @file
/// Stages one after another, itself a stage: the output of each is the next one's input. An
/// activation (nn/activation.hpp) in the list stands for the stage that applies it.
#pragma once

#include <tuple>

#include "ttt/inner/stages/pointwise.hpp"

namespace ttt {

namespace detail {

template <class T>
struct AsStage {
  using type = T;
};
template <class T>
requires Activation<T, float>
struct AsStage<T> {
  using type = Pointwise<T>;
};

/// Calls fn with 0, 1 ... N-1 as constants; `each_index_down` the other way round.
template <std::size_t N>
void each_index(auto&& fn) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (fn(std::integral_constant<std::size_t, I>{}), ...);
  }
  (std::make_index_sequence<N>{});
}
template <std::size_t N>
void each_index_down(auto&& fn) {
  each_index<N>([&](auto i) { fn(std::integral_constant<std::size_t, N - 1 - i>{}); });
}

}  // namespace detail

/// What can stand in a stack: a stage, or an activation.
template <class T>
using StageOf = typename detail::AsStage<T>::type;

template <class T>
concept StageOrActivation = Stage<StageOf<T>>;

template <StageOrActivation... Parts>
struct Chain {
  static_assert(sizeof...(Parts) > 0, "a chain of stages has at least one");
  static constexpr std::size_t size = sizeof...(Parts);
  using Stages = std::tuple<StageOf<Parts>...>;
  template <std::size_t I>
  using StageAt = std::tuple_element_t<I, Stages>;

  static constexpr std::size_t weight_count = (StageOf<Parts>::weight_count + ...);

  static constexpr Index width(Index in, Index head_width) {
    ((in = in < 0 ? in : StageOf<Parts>::width(in, head_width)), ...);
    return in;
  }

  static constexpr WeightShape weight_shape(std::size_t l, Index in, Index head_width) {
    WeightShape shape{};
    std::size_t first = 0;
    const auto next = [&]<class St>(std::type_identity<St>) {
      if (l >= first && l < first + St::weight_count)
        shape = St::weight_shape(l - first, in, head_width);
      first += St::weight_count;
      in = St::width(in, head_width);
    };
    (next(std::type_identity<StageOf<Parts>>{}), ...);
    return shape;
  }

  /// Whether weight l computes W' Del: where a stage lies below, or `below` says that one does.
  static constexpr bool passes_gradient_down(std::size_t l, bool below) {
    bool passes = false;
    std::size_t first = 0;
    const auto next = [&]<class St>(std::type_identity<St>) {
      if (l >= first && l < first + St::weight_count)
        passes = St::passes_gradient_down(l - first, below);
      first += St::weight_count;
      below = true;
    };
    (next(std::type_identity<StageOf<Parts>>{}), ...);
    return passes;
  }

  /// Outputs of every stage but the last, and the gradients there.
  template <Scalar S>
  struct Trace {
    std::tuple<typename StageOf<Parts>::template Trace<S>...> stages;
    std::array<Matrix<S>, size> up, down, answer;
  };

  template <Scalar S>
  struct Scratch {
    std::tuple<typename StageOf<Parts>::template Scratch<S>...> stages;
  };

  template <Scalar S, InnerModel Model>
  static void up(const StageChunk<S, Model>& at, MatrixIn<S> A, Matrix<S>& A_next,
                 Trace<S>& trace) {
    detail::each_index<size>([&](auto i) {
      StageAt<i>::template up<S>(at.later(weights_before<i>), input<S>(i, A, trace.up),
                                 i + 1 == size ? A_next : trace.up[i], std::get<i>(trace.stages));
    });
  }

  template <Scalar S, InnerModel Model>
  static void down(const StageChunk<S, Model>& at, MatrixIn<S> D_next, Matrix<S>* D,
                   Trace<S>& trace) {
    detail::each_index_down<size>([&](auto i) {
      StageAt<i>::template down<S>(at.later(weights_before<i>),
                                   gradient_above<S>(i, D_next, trace.down),
                                   i == 0 ? D : &trace.down[i], std::get<i>(trace.stages));
    });
  }

  template <Scalar S, InnerModel Model>
  static void answer(const StageChunk<S, Model>& at, const StageInputs<S>& in, Matrix<S>& B_next,
                     Trace<S>& trace) {
    detail::each_index<size>([&](auto i) {
      StageAt<i>::template answer<S>(at.later(weights_before<i>), inputs<i, S>(in, trace),
                                     i + 1 == size ? B_next : trace.answer[i],
                                     std::get<i>(trace.stages));
    });
  }

  template <Scalar S>
  static void carry(std::size_t first, const StageInputs<S>& in, Trace<S>& trace, VectorIn<S> e,
                    auto& X) {
    detail::each_index<size>([&](auto i) {
      StageAt<i>::carry(first + weights_before<i>, inputs<i, S>(in, trace),
                        std::get<i>(trace.stages), e, X);
    });
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& answer_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                    const Trace<S>& trace, const Matrix<S>& dB_next,
                                    StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    Matrix<S>* dB = nullptr;
    detail::each_index_down<size>([&](auto i) {
      dB = &StageAt<i>::template answer_backward<S>(
          at.later(weights_before<i>), inputs<i, S>(in, trace), std::get<i>(trace.stages),
          dB ? *dB : dB_next, grad, std::get<i>(scratch.stages));
    });
    return *dB;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& down_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                  const Trace<S>& trace, const Matrix<S>* dD,
                                  StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    Matrix<S>* dD_next = nullptr;
    detail::each_index<size>([&](auto i) {
      dD_next = &StageAt<i>::template down_backward<S>(
          at.later(weights_before<i>), inputs<i, S>(in, trace), std::get<i>(trace.stages),
          i == 0 ? dD : dD_next, grad, std::get<i>(scratch.stages));
    });
    return *dD_next;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& up_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                const Trace<S>& trace, const Matrix<S>& dA_next,
                                StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    Matrix<S>* dA = nullptr;
    detail::each_index_down<size>([&](auto i) {
      dA = &StageAt<i>::template up_backward<S>(
          at.later(weights_before<i>), inputs<i, S>(in, trace), std::get<i>(trace.stages),
          dA ? *dA : dA_next, grad, std::get<i>(scratch.stages));
    });
    return *dA;
  }

  template <Scalar S>
  static void each_learning_gradient(Matrix<S>& D_next, Trace<S>& trace, auto&& fn) {
    detail::each_index<size>([&](auto i) {
      StageAt<i>::each_learning_gradient(i + 1 == size ? D_next : trace.down[i + 1],
                                         std::get<i>(trace.stages), fn);
    });
  }

 private:
  template <std::size_t I>
  static constexpr std::size_t count_weights_before() {
    std::size_t count = 0;
    if constexpr (I > 0) count = count_weights_before<I - 1>() + StageAt<I - 1>::weight_count;
    return count;
  }
  template <std::size_t I>
  static constexpr std::size_t weights_before = count_weights_before<I>();

  /// What enters stage i: the chain's own input, or what the stage below made of it.
  template <Scalar S>
  static MatrixView<S> input(std::size_t i, MatrixIn<S> tokens,
                             const std::array<Matrix<S>, size>& outputs) {
    if (i == 0) return tokens;
    return outputs[i - 1];
  }
  /// The gradient at the output of stage i.
  template <Scalar S>
  static MatrixView<S> gradient_above(std::size_t i, MatrixIn<S> D_next,
                                      const std::array<Matrix<S>, size>& down) {
    if (i + 1 == size) return D_next;
    return down[i + 1];
  }
  template <std::size_t I, Scalar S>
  static StageInputs<S> inputs(const StageInputs<S>& in, const Trace<S>& trace) {
    return {input<S>(I, in.A, trace.up), gradient_above<S>(I, in.D_next, trace.down),
            input<S>(I, in.B, trace.answer)};
  }
};

}  // namespace ttt
