/// @file
/// The layers in float, compiled once: a program that includes this and links ttt::precompiled
/// (built where TTT_PRECOMPILED is on) takes their code from there. Types and calls are those of
/// the headers, which remain the library: layers of other types are compiled where they are used.
/// The library's flags must agree with the program's where the layout of memory depends on them
/// (-march): Eigen's alignment, packed weights. A program that differs does not link. It is serial,
/// so it excludes ttt::openmp.
#pragma once

#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
#error "ttt::precompiled is serial: a program that uses it cannot use ttt::openmp"
#endif

namespace ttt {

extern template class Attention<float>;
extern template class LinearAttention<float>;
extern template class LSTM<float>;
extern template class Mamba<float>;
extern template class TTTLayer<float, LinearModel>;
extern template class TTTLayer<float, MLPModel>;

namespace detail {

/// Eigen rounds allocations up to `alignment` and frees them so; panels of packed weights are
/// `lanes` wide. The library defines the function for its own numbers.
template <int alignment, int lanes>
bool precompiled_for();

#if !defined(TTT_PRECOMPILING)
/// This asks for the program's.
[[gnu::used]] static bool (*const precompiled_agrees)() =
    &precompiled_for<EIGEN_MAX_ALIGN_BYTES, word_lanes>;
#endif

}  // namespace detail
}  // namespace ttt
