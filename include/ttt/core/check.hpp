/// @file
/// Errors: one sentence that says what was wrong, where, and what was expected.
/// Without exceptions (`-fno-exceptions`) the sentence goes to standard error and the program
/// stops.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

#include "ttt/core/types.hpp"

namespace ttt {

namespace detail {

/// A part of a message, and how it is written: one function for a type, so that sentences of
/// different parts need no code of their own.
struct MessagePart {
  const void* value;
  void (*write)(std::ostream& text, const void* value);

  template <class T>
  MessagePart(const T& part)  // NOLINT(google-explicit-constructor)
      : value(&part), write([](std::ostream& text, const void* value_of_part) {
          text << *static_cast<const T*>(value_of_part);
        }) {}
  MessagePart(const char* part)  // NOLINT(google-explicit-constructor)
      : value(part), write([](std::ostream& text, const void* characters) {
          text << static_cast<const char*>(characters);
        }) {}
};

inline std::string join(std::initializer_list<MessagePart> parts) {
  std::ostringstream text;
  for (const MessagePart& part : parts) part.write(text, part.value);
  return text.str();
}

}  // namespace detail

/// Joins its arguments into one string, numbers included.
template <class... Parts>
std::string concat(const Parts&... parts) {
  return detail::join({detail::MessagePart(parts)...});
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

namespace detail {

[[noreturn]] inline void refuse(std::initializer_list<MessagePart> parts) {
  raise<std::invalid_argument>(join(parts));
}

[[noreturn]] inline void refuse_shape(const char* what, Index is_rows, Index is_cols, Index rows,
                                      Index cols) {
  refuse({what, " has shape ", is_rows, " x ", is_cols, ", expected ", rows, " x ", cols});
}

}  // namespace detail

/// Throws `std::invalid_argument` with the joined parts unless `condition` holds.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) detail::refuse({detail::MessagePart(parts)...});
}

/// Requires `matrix` to be `rows x cols`; `what` names function and argument.
template <class Derived>
void require_shape(const char* what, const Eigen::EigenBase<Derived>& matrix, Index rows,
                   Index cols) {
  if (matrix.rows() != rows || matrix.cols() != cols)
    detail::refuse_shape(what, matrix.rows(), matrix.cols(), rows, cols);
}

}  // namespace ttt
