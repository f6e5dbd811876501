/// @file
/// Which number types the library computes with.
#pragma once

#include <concepts>

namespace ttt {

/// A real number type that Eigen can compute with: `float`, `double`, or a type for which the user
/// specializes `is_scalar` (a dual number in a test, say).
template <class T>
inline constexpr bool is_scalar = std::floating_point<T>;

template <class T>
concept Scalar = is_scalar<T>;

}  // namespace ttt
