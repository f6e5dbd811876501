/// @file
/// Errors: one sentence that says what was wrong, where, and what was expected.
/// Without exceptions (`-fno-exceptions`) the sentence goes to standard error and the program
/// stops.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>

#include "ttt/core/types.hpp"

namespace ttt {

/// Joins its arguments into one string, numbers included.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

/// Throws `Error(message)`; prints it and aborts where exceptions are switched off.
template <class Error>
[[noreturn]] void raise(const std::string& message) {
#if defined(__cpp_exceptions)
  throw Error(message);
#else
  std::fprintf(stderr, "ttt: %s\n", message.c_str());
  std::abort();
#endif
}

/// Throws `std::invalid_argument` with the joined parts unless `condition` holds.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) raise<std::invalid_argument>(concat(parts...));
}

/// Requires `matrix` to be `rows x cols`; `what` names function and argument.
template <class Derived>
void require_shape(const char* what, const Eigen::EigenBase<Derived>& matrix, Index rows,
                   Index cols) {
  if (matrix.rows() == rows && matrix.cols() == cols) return;
  raise<std::invalid_argument>(concat(what, " has shape ", matrix.rows(), " x ", matrix.cols(),
                                      ", expected ", rows, " x ", cols));
}

}  // namespace ttt
