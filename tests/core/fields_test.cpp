#include "ttt/core/fields.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "support/temporary_folder.hpp"

namespace ttt {
namespace {

using testing::message_of;

struct Leaf {
  Matrix<double> weight;  // [in, out]
  Vector<double> bias;    // [out]
  Index position = 0;

  static auto fields(auto& self) {
    return std::tuple(field("weight", self.weight), field("bias", self.bias),
                      field("position", self.position));
  }
};

Leaf leaf(double value, Index position = 0) {
  return {Matrix<double>::Constant(2, 3, value), Vector<double>::Constant(3, value), position};
}

struct Kernel {
  Matrix<float> kernel;
  static auto fields(auto& self) { return std::tuple(field("kernel", self.kernel)); }
};

struct Everything {
  std::vector<Leaf> layers;
  std::array<Matrix<double>, 2> W;  // named W1 and W2
  std::optional<Leaf> extra;
  std::variant<Leaf, Kernel> mixer;
  Leaf nested;
  double scale = 1;
  bool flag = false;

  static auto fields(auto& self) {
    return std::tuple(field("layers", self.layers), field("W", self.W), field("extra", self.extra),
                      field("mixer", self.mixer), field("", self.nested),
                      field("scale", self.scale), field("flag", self.flag));
  }
};

Everything everything() {
  return {{leaf(1, 10), leaf(2, 20)},
          {Matrix<double>::Constant(1, 2, 3), Matrix<double>::Constant(4, 1, 4)},
          leaf(5, 50),
          Kernel{Matrix<float>::Constant(2, 2, 6)},
          leaf(7, 70),
          1.5,
          true};
}

/// A class whose members are private: its fields need not be all of them.
class Layer {
 public:
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }
  Kernel parameters_{Matrix<float>::Ones(2, 3)};

 private:
  [[maybe_unused]] int secret_ = 0;
};

template <class T>
std::vector<std::string> names_of(const T& value) {
  std::vector<std::string> names;
  for_each_tensor([&](const TensorInfo& info, const auto&) { names.push_back(info.name); }, value);
  return names;
}

template <class T>
std::vector<Index> shape_of(const T& value) {
  std::vector<Index> shape;
  for_each_tensor([&](const TensorInfo& info, const auto&) { shape = info.shape; }, value);
  return shape;
}

TEST(FieldsTest, NamesTensorsByTheirPlace) {
  EXPECT_EQ(names_of(everything()),
            (std::vector<std::string>{"layers.0.weight", "layers.0.bias", "layers.1.weight",
                                      "layers.1.bias", "W1", "W2", "extra.weight", "extra.bias",
                                      "mixer.kernel", "weight", "bias"}));
  Everything other = everything();
  other.layers.clear();
  other.extra.reset();
  other.mixer = leaf(8);
  EXPECT_EQ(names_of(other),
            (std::vector<std::string>{"W1", "W2", "mixer.weight", "mixer.bias", "weight", "bias"}));
  EXPECT_EQ(names_of(Layer()), (std::vector<std::string>{"kernel"}));
}

TEST(FieldsTest, PassesOverEmptyTensors) {
  Leaf without_bias = leaf(1);
  without_bias.bias.resize(0);
  EXPECT_EQ(names_of(without_bias), (std::vector<std::string>{"weight"}));
  EXPECT_EQ(names_of(Leaf()), (std::vector<std::string>{}));
}

struct Shapes {
  Matrix<double> tensor;
  Index groups;
  static auto fields(auto& self) {
    return std::tuple(field("tensor", self.tensor, self.groups), field("groups", self.groups));
  }
};

struct Column {
  Vector<float> tensor;
  static auto fields(auto& self) { return std::tuple(field("tensor", self.tensor)); }
};

TEST(FieldsTest, GivesShapesAsRowMajorFilesHaveThem) {
  EXPECT_EQ(shape_of(Shapes{Matrix<double>(5, 6), 0}), (std::vector<Index>{6, 5}));
  EXPECT_EQ(shape_of(Shapes{Matrix<double>(5, 1), 0}), (std::vector<Index>{1, 5}));
  EXPECT_EQ(shape_of(Shapes{Matrix<double>(5, 6), 1}), (std::vector<Index>{1, 6, 5}));
  EXPECT_EQ(shape_of(Shapes{Matrix<double>(5, 6), 3}), (std::vector<Index>{3, 2, 5}));
  EXPECT_EQ(shape_of(Shapes{Matrix<double>(5, 6), 6}), (std::vector<Index>{6, 1, 5}));
  EXPECT_EQ(shape_of(Column{Vector<float>(4)}), (std::vector<Index>{4}));
}

TEST(FieldsTest, WalksStructsInLockstep) {
  Everything sum = everything();
  const Everything once = everything();
  const Everything twice = sum;
  int visits = 0;
  for_each_tensor(
      [&](const TensorInfo&, auto& a, const auto& b, const auto& c) {
        a += 10 * b + 100 * c;
        ++visits;
      },
      sum, once, twice);
  EXPECT_EQ(visits, 11);
  for_each_tensor([](const TensorInfo& info, const auto& a,
                     const auto& b) { EXPECT_EQ(a, (111 * b).eval()) << info.name; },
                  sum, once);
}

TEST(FieldsTest, RefusesStructsOfDifferentLengthOrKind) {
  const Everything full = everything();
  const auto compare = [](const Everything& a, const Everything& b) {
    return message_of(
        [&] { for_each_tensor([](const TensorInfo&, const auto&, const auto&) {}, a, b); });
  };
  EXPECT_EQ(compare(full, full), "");
  Everything shorter = full, without = full, other = full;
  shorter.layers.pop_back();
  without.extra.reset();
  other.mixer = leaf(1);
  EXPECT_EQ(compare(full, shorter),
            "for_each_tensor: layers has different lengths in the structs compared");
  EXPECT_EQ(compare(shorter, full),
            "for_each_tensor: layers has different lengths in the structs compared");
  for (const auto& [a, b] : {std::pair(full, without), std::pair(without, full)})
    EXPECT_EQ(compare(a, b), "for_each_tensor: extra is absent in some of the structs compared");
  for (const auto& [a, b] : {std::pair(full, other), std::pair(other, full)})
    EXPECT_EQ(compare(a, b),
              "for_each_tensor: mixer is of different kinds in the structs compared");
}

TEST(FieldsTest, NumbersAreVisitedApart) {
  Everything value = everything();
  std::vector<std::pair<std::string, double>> numbers;
  for_each_number(
      [&](const std::string& name, const auto& number) {
        numbers.emplace_back(name, static_cast<double>(number));
      },
      value);
  EXPECT_EQ(numbers, (std::vector<std::pair<std::string, double>>{{"layers.0.position", 10},
                                                                  {"layers.1.position", 20},
                                                                  {"extra.position", 50},
                                                                  {"position", 70},
                                                                  {"scale", 1.5},
                                                                  {"flag", 1}}));
  const Everything copy = value;
  for_each_number([](const std::string&, auto& a, const auto& b) { a = a + b; }, value, copy);
  EXPECT_EQ(value.layers[1].position, 40);
  EXPECT_EQ(value.scale, 3);
}

TEST(FieldsTest, ZerosKeepShapesAndNumbers) {
  Everything value = everything();
  const Everything zeros = zeros_like(value);
  EXPECT_EQ(value.nested.weight, leaf(7).weight);
  EXPECT_EQ(zeros.layers[1].weight, Matrix<double>::Zero(2, 3));
  EXPECT_EQ(std::get<Kernel>(zeros.mixer).kernel, Matrix<float>::Zero(2, 2));
  EXPECT_EQ(zeros.layers[1].position, 20);
  EXPECT_EQ(names_of(zeros), names_of(value));
  set_zero(value);
  for_each_tensor(
      [](const TensorInfo& info, const auto& a, const auto& b) { EXPECT_EQ(a, b) << info.name; },
      value, zeros);
  EXPECT_EQ(value.scale, 1.5);
}

TEST(FieldsTest, CountsElements) {
  EXPECT_EQ(count_elements(everything()), 4 * (6 + 3) + 2 + 4 + 4);
  EXPECT_EQ(count_elements(Leaf()), 0);
}

TEST(FieldsTest, FindsTheFirstTensorThatIsNotFinite) {
  Everything value = everything();
  EXPECT_EQ(first_non_finite(value), std::nullopt);
  std::get<Kernel>(value.mixer).kernel(1, 1) = std::numeric_limits<float>::infinity();
  EXPECT_EQ(first_non_finite(value), "mixer.kernel");
  value.layers[1].bias[2] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(first_non_finite(value), "layers.1.bias");
}

struct Partly {
  Leaf decaying, protected_leaf;
  Vector<double> scale = Vector<double>::Ones(2);
  static auto fields(auto& self) {
    return std::tuple(field("a", self.decaying), without_decay(field("b", self.protected_leaf)),
                      without_decay(field("scale", self.scale)));
  }
};

TEST(FieldsTest, SaysWhichTensorsWeightDecayIsFor) {
  const Partly value{leaf(1), leaf(2)};
  std::vector<std::string> decaying;
  for_each_tensor(
      [&](const TensorInfo& info, const auto&) {
        if (info.decays) decaying.push_back(info.name);
      },
      value);
  EXPECT_EQ(decaying, (std::vector<std::string>{"a.weight", "a.bias"}));
}

/// What `for_each_tensor` asserts of a struct when it is compiled.
template <class T>
constexpr bool lists_every_member =
    detail::member_count<T>() == std::tuple_size_v<decltype(T::fields(std::declval<T&>()))>;

struct Forgetful {
  Matrix<double> first, forgotten;
  static auto fields(auto& self) { return std::tuple(field("first", self.first)); }
};

struct ForgetfulOfNumbers {
  Vector<float> first;
  Index forgotten = 0;
  static auto fields(auto& self) { return std::tuple(field("first", self.first)); }
};

struct ForgetfulOfLists {
  std::vector<Leaf> forgotten;
  std::array<Matrix<float>, 3> second;
  std::optional<Leaf> third;
  static auto fields(auto& self) {
    return std::tuple(field("second", self.second), field("third", self.third));
  }
};

static_assert(lists_every_member<Leaf> && lists_every_member<Everything> &&
              lists_every_member<Shapes> && lists_every_member<Kernel>);
static_assert(!lists_every_member<Forgetful> && !lists_every_member<ForgetfulOfNumbers> &&
              !lists_every_member<ForgetfulOfLists>);
static_assert(detail::member_count<Everything>() == 7 &&
              detail::member_count<ForgetfulOfLists>() == 3);
static_assert(HasFields<Leaf> && HasFields<const Leaf> && HasFields<Layer>);
static_assert(!HasFields<int> && !HasFields<Matrix<float>> && !HasFields<std::vector<Leaf>>);

}  // namespace
}  // namespace ttt
