/// @file
/// The layers in float, compiled once: a program that includes this and links ttt::precompiled
/// (built where TTT_PRECOMPILED is on) takes their code from there. Types and calls are those of
/// the headers, which remain the library: layers of other types are compiled where they are used.
/// The library's flags must agree with the program's where Eigen's alignment depends on them
/// (-march); a program that differs does not link. It is serial, so it excludes ttt::openmp.
#pragma once

#include "ttt/layers/attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
#error "ttt::precompiled is serial: a program that uses it cannot use ttt::openmp"
#endif

namespace ttt {

extern template class Attention<float>;
extern template class LSTM<float>;
extern template class Mamba<float>;
extern template class TTTLayer<float, LinearModel>;
extern template class TTTLayer<float, MLPModel>;

namespace detail {

/// Eigen rounds allocations up to `alignment` and frees them so.
template <int alignment>
struct PrecompiledFor {
  static const bool alignment_of_eigen;
};

/// The library defines the one for its own alignment; this asks for the program's.
[[gnu::used]] static const bool* const precompiled_agrees =
    &PrecompiledFor<EIGEN_MAX_ALIGN_BYTES>::alignment_of_eigen;

}  // namespace detail
}  // namespace ttt
