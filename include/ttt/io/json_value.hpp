/// @file
/// Reading keys of a configuration, with one sentence for each way in which a key can be wrong.
#pragma once

#include <concepts>
#include <nlohmann/json.hpp>
#include <string>

#include "ttt/core/check.hpp"

namespace ttt::detail {

/// The value of `key`, or `fallback` where the key is absent or null.
/// Throws `std::runtime_error` that names the key where the value is of another kind.
template <class T>
T json_value(const nlohmann::json& json, const char* key, T fallback) {
  if (!json.is_object())
    raise<std::runtime_error>("the configuration is not a JSON object, expected keys and values");
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return fallback;
  const bool fits = std::same_as<T, bool>          ? found->is_boolean()
                    : std::same_as<T, std::string> ? found->is_string()
                    : std::integral<T>             ? found->is_number_integer()
                                                   : found->is_number();
  if (!fits)
    raise<std::runtime_error>(concat("the configuration's '", key, "' is ", found->dump(),
                                     ", expected ",
                                     std::same_as<T, bool>          ? "true or false"
                                     : std::same_as<T, std::string> ? "a text"
                                     : std::integral<T>             ? "a whole number"
                                                                    : "a number"));
  return found->template get<T>();
}

/// Refuses a configuration that asks for what this library does not do.
template <class T>
void require_json_value(const nlohmann::json& json, const char* key, T only) {
  const T value = json_value<T>(json, key, only);
  if (value != only)
    raise<std::runtime_error>(concat("the configuration's '", key, "' is ", json.at(key).dump(),
                                     ", expected ", nlohmann::json(only).dump(),
                                     ", the only value that is supported"));
}

}  // namespace ttt::detail
