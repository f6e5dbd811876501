/// @file
/// The whole library compiles, links and runs with -fno-exceptions -fno-rtti.
#include "ttt/ttt.hpp"

int main() {
  const ttt::Matrix<float> A = ttt::Matrix<float>::Constant(2, 3, 0.5F);
  const ttt::Matrix<float> B = ttt::Matrix<float>::Ones(3, 4);
  ttt::Matrix<float> C(2, 4);
  ttt::Product<float>::ab(A, B, C);
  ttt::require_shape("C", C, 2, 4);
  return C.sum() == 12.0F ? 0 : 1;
}
