/// @file
/// A program of somebody else's, which uses the library as its build found it.
#include <cstdio>

#include "ttt/ttt.hpp"

int main() {
  const ttt::Matrix<float> A = ttt::Matrix<float>::Constant(2, 3, 0.5F);
  const ttt::Matrix<float> B = ttt::Matrix<float>::Ones(3, 4);
  ttt::Matrix<float> C(2, 4);
  ttt::Product<float>::ab(A, B, C);
  std::printf("ttt %d.%d.%d\n", TTT_VERSION_MAJOR, TTT_VERSION_MINOR, TTT_VERSION_PATCH);
  return C.sum() == 12.0F ? 0 : 1;
}
