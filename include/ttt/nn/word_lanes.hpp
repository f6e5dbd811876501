/// @file
/// Registers of floats that are read from words of 32 bits: a word holds one float, two upper
/// halves of floats or four integers of 8 bits, the first in its lowest bits. Shifts and a
/// conversion of whole words take them apart, which every vector unit has; written with the vector
/// types of GCC and clang, since loops over such words are not vectorized by both. Other compilers
/// take the loops.
#pragma once

#include <cstdint>
#include <cstring>

namespace ttt {

#if defined(__GNUC__) && !defined(TTT_WITHOUT_VECTOR_TYPES)

/// Words that a register holds.
#if defined(__AVX512F__)
inline constexpr int word_lanes = 16;
#elif defined(__AVX2__)
inline constexpr int word_lanes = 8;
#else
inline constexpr int word_lanes = 4;
#endif

using FloatLanes [[gnu::vector_size(4 * word_lanes)]] = float;

/// The weights of place `place` in a register of words that hold `per_word` of them.
template <int per_word>
void load_lanes(const std::uint32_t* words, int place, FloatLanes& lanes) {
  using Bits [[gnu::vector_size(4 * word_lanes)]] = std::uint32_t;
  using Integers [[gnu::vector_size(4 * word_lanes)]] = std::int32_t;
  if constexpr (per_word == 1) {
    std::memcpy(&lanes, words, sizeof lanes);
  } else if constexpr (per_word == 2) {
    Bits bits;
    std::memcpy(&bits, words, sizeof bits);
    bits = place == 0 ? bits << 16 : bits & 0xffff0000u;
    std::memcpy(&lanes, &bits, sizeof lanes);
  } else {
    Integers integers;
    std::memcpy(&integers, words, sizeof integers);
    integers = (integers << (24 - 8 * place)) >> 24;
    lanes = __builtin_convertvector(integers, FloatLanes);
  }
}

#else

inline constexpr int word_lanes = 4;

struct FloatLanes {
  float lane[word_lanes] = {};
  friend FloatLanes operator*(FloatLanes a, float b) {
    for (float& x : a.lane) x *= b;
    return a;
  }
  friend FloatLanes operator+(FloatLanes a, const FloatLanes& b) { return a += b; }
  FloatLanes& operator+=(const FloatLanes& b) {
    for (int i = 0; i < word_lanes; ++i) lane[i] += b.lane[i];
    return *this;
  }
};

template <int per_word>
void load_lanes(const std::uint32_t* words, int place, FloatLanes& lanes) {
  for (int i = 0; i < word_lanes; ++i) {
    std::uint32_t bits = words[i];
    if constexpr (per_word == 4) {
      lanes.lane[i] = static_cast<std::int8_t>(bits >> (8 * place) & 255);
    } else {
      if constexpr (per_word == 2) bits = place == 0 ? bits << 16 : bits & 0xffff0000u;
      std::memcpy(&lanes.lane[i], &bits, sizeof bits);
    }
  }
}

#endif

}  // namespace ttt
