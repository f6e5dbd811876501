/// @file
/// std::visit that also says which alternative a variant holds, so that other variants and tuples
/// can be read at the same place, even where two alternatives have one type.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

namespace ttt {

/// Calls `body(std::integral_constant<std::size_t, I>(), alternative)` for the alternative I that
/// `variant` holds.
template <class Variant, class Body>
void visit_index(Variant& variant, Body&& body) {
  const auto try_alternative = [&]<std::size_t I>(std::integral_constant<std::size_t, I> index) {
    if (variant.index() == I) body(index, std::get<I>(variant));
  };
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (try_alternative(std::integral_constant<std::size_t, I>{}), ...);
  }
  (std::make_index_sequence<std::variant_size_v<std::remove_const_t<Variant>>>{});
}

}  // namespace ttt
