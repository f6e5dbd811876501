/// @file
/// Two units include the whole library and instantiate the same templates: a function that lacks
/// `inline` fails to link.
#include "ttt/ttt.hpp"

double product_in_second_unit(double value);

int main() {
  const ttt::Matrix<double> A = ttt::Matrix<double>::Constant(2, 3, 0.5);
  const ttt::Matrix<double> B = ttt::Matrix<double>::Ones(3, 4);
  ttt::Matrix<double> C(2, 4);
  ttt::Product<double>::ab(A, B, C);
  return C.sum() == 12 && product_in_second_unit(0.5) == 12 ? 0 : 1;
}
