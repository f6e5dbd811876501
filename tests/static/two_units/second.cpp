/// @file
/// The second unit: instantiates the same templates as the first, in a function of its own.
#include "ttt/ttt.hpp"

double product_in_second_unit(double value) {
  const ttt::Matrix<double> A = ttt::Matrix<double>::Constant(2, 3, value);
  const ttt::Matrix<double> B = ttt::Matrix<double>::Ones(3, 4);
  ttt::Matrix<double> C(2, 4);
  ttt::Product<double>::ab(A, B, C);
  return C.sum();
}
