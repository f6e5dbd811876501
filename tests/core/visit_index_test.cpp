#include "ttt/core/visit_index.hpp"

#include <gtest/gtest.h>

#include <string>
#include <tuple>

namespace ttt {
namespace {

TEST(VisitIndexTest, TellsAlternativesOfOneTypeApart) {
  using Variant = std::variant<int, std::string, int>;
  const auto place_of = [](const Variant& variant) {
    std::size_t place = 99;
    const std::tuple names{0, 1, 2};
    visit_index(variant, [&](auto index, const auto&) {
      place = static_cast<std::size_t>(std::get<index>(names));
    });
    return place;
  };
  EXPECT_EQ(place_of(Variant(std::in_place_index<0>, 7)), 0u);
  EXPECT_EQ(place_of(Variant(std::in_place_index<1>, "seven")), 1u);
  EXPECT_EQ(place_of(Variant(std::in_place_index<2>, 7)), 2u);
}

TEST(VisitIndexTest, GivesAccessToTheAlternative) {
  std::variant<int, int> variant(std::in_place_index<1>, 3);
  visit_index(variant, [](auto index, auto& value) { value += 10 * static_cast<int>(index()); });
  EXPECT_EQ(std::get<1>(variant), 13);
}

}  // namespace
}  // namespace ttt
