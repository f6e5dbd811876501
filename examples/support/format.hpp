/// @file
/// Numbers as people read them: fixed digits, 1.2M, 3 min 20 s, 4.5 MB. A value that does not
/// exist (NaN) is a dash.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <string>

namespace ttt::examples {

inline double bits_from_nats(double nats) { return nats / std::numbers::ln2; }

/// `value` with `digits` digits after the point.
inline std::string fixed(double value, int digits) {
  if (std::isnan(value)) return "-";
  char text[64];
  std::snprintf(text, sizeof text, std::abs(value) < 1e15 ? "%.*f" : "%.*e", digits, value);
  return text;
}

/// `value` in `digits` significant digits, without trailing zeros.
inline std::string brief(double value, int digits = 3) {
  if (std::isnan(value)) return "-";
  char text[64];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

/// Thousands as k, M, G, T, P, E: 1234567 is "1.23M".
inline std::string compact(double value, int digits = 3) {
  static constexpr const char* units[] = {"", "k", "M", "G", "T", "P", "E"};
  int unit = 0;
  while (std::abs(value) >= 999.5 && unit < 6) {
    value /= 1000;
    ++unit;
  }
  return brief(value, digits) + units[unit];
}

/// The same with a unit: 4512345 of "B" is "4.51 MB".
inline std::string with_unit(double value, const std::string& unit) {
  if (std::isnan(value)) return "-";
  const std::string number = compact(value);
  if (number.find_last_of("kMGTPE") != number.size() - 1) return number + " " + unit;
  return number.substr(0, number.size() - 1) + " " + number.back() + unit;
}
inline std::string byte_size(double bytes) { return with_unit(bytes, "B"); }

/// Seconds as "850 ms", "42 s", "3 min 20 s", "2 h 05 min".
inline std::string duration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  if (seconds < 1) return fixed(seconds * 1e3, 0) + " ms";
  const long long total = std::llround(seconds);
  char text[64];
  if (total < 60) {
    std::snprintf(text, sizeof text, "%lld s", total);
  } else if (total < 3600) {
    std::snprintf(text, sizeof text, "%lld min %02lld s", total / 60, total % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld h %02lld min", total / 3600, total % 3600 / 60);
  }
  return text;
}

/// Characters that a terminal shows: bytes that do not continue a UTF-8 character.
inline std::size_t display_width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// `text` filled with spaces to `width` characters, on the left (numbers) or on the right.
inline std::string pad_left(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, display_width(text)), ' ') + text;
}
inline std::string pad_right(const std::string& text, std::size_t width) {
  return text + std::string(width - std::min(width, display_width(text)), ' ');
}

}  // namespace ttt::examples
