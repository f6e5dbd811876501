// Against a file of the format's own implementation (golden/make_safetensors_golden.py), and
// against every way in which a file can be broken.
#include "ttt/io/safetensors.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "support/temporary_folder.hpp"
#include "ttt/core/random.hpp"

namespace ttt {
namespace {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

const std::string golden_path = TTT_GOLDEN_DIR "/io/dtypes.safetensors";

/// Length, header and `data` zero bytes.
std::string file_of(const std::string& header, std::size_t data = 0) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data, '\0');
}

/// All tensors of a file, in the order of their bytes.
struct Content {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorView> views;

  explicit Content(const SafetensorsFile& file) {
    for (const auto& [name, entry] : file.entries()) {
      bytes.push_back(file.bytes(name));
      views.push_back({name, entry.dtype, entry.shape, bytes.back()});
    }
    std::sort(views.begin(), views.end(), [&](const auto& a, const auto& b) {
      const auto &first = file.entry(a.name), &second = file.entry(b.name);
      return std::pair(first.begin, first.end) < std::pair(second.begin, second.end);
    });
  }
};

TEST(SafetensorsFileTest, ReadsEveryFloatingPointType) {
  const SafetensorsFile file(golden_path);
  const auto f64 = file.read<double>("f64"), f32 = file.read<double>("f32");
  const auto f32_as_float = file.read<float>("f32");
  ASSERT_EQ(f64.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    const double ramp = static_cast<double>(i) - 2.5;
    EXPECT_EQ(f64[i], ramp / 3);
    EXPECT_EQ(f32_as_float[i], static_cast<float>(ramp) / 3.0f);
    EXPECT_EQ(f32[i], static_cast<double>(f32_as_float[i]));
  }
  const auto f16 = file.read<float>("f16");
  EXPECT_EQ(f16[0], 0);
  EXPECT_TRUE(std::signbit(f16[1]) && !std::signbit(f16[0]));
  EXPECT_EQ(f16[2], 1.5f);
  EXPECT_EQ(f16[3], 0x1p-24f);  // 6e-8 rounds to the smallest number above 0
  EXPECT_EQ(f16[4], 65504.0f);
  EXPECT_EQ(f16[5], std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(f16[6]));

  const auto bf16 = file.read<double>("bf16");
  EXPECT_TRUE(std::signbit(bf16[1]));
  EXPECT_EQ(bf16[2], 1.5);
  EXPECT_EQ(bf16[3], 0x1p-133);  // 1e-40 rounds to the smallest number above 0
  EXPECT_NEAR(bf16[4], 3e38, 3e38 / 256);
  EXPECT_EQ(bf16[5], -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(bf16[6]));
}

TEST(SafetensorsFileTest, ReadsIntegersNamesShapesAndMetadata) {
  const SafetensorsFile file(golden_path);
  EXPECT_EQ(file.read<std::int64_t>("i64"),
            (std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min(), -1, 0,
                                       std::numeric_limits<std::int64_t>::max()}));
  EXPECT_EQ(file.read<Index>("i32"), (std::vector<Index>{-2147483648LL, 2147483647}));
  EXPECT_EQ(file.read<int>("u8"), (std::vector<int>{0, 7, 255}));
  EXPECT_EQ(file.shape("i32"), (std::vector<Index>{2, 1}));
  EXPECT_EQ(file.shape("a scalar"), std::vector<Index>{});
  EXPECT_EQ(file.read<double>("a scalar"), std::vector<double>{0.1});
  EXPECT_EQ(file.shape("empty"), (std::vector<Index>{3, 0}));
  EXPECT_TRUE(file.read<float>("empty").empty());
  EXPECT_EQ(file.read<float>("name with spaces, \"quotes\" and \u00e9"), std::vector<float>{1});
  EXPECT_EQ(file.dtype("bool"), "BOOL");
  EXPECT_EQ(file.bytes("i8"), (std::vector<std::byte>{std::byte{0x80}, std::byte{0x7f}}));
  EXPECT_EQ(file.entries().size(), 13u);
  EXPECT_EQ(file.metadata(), (Metadata{{"title", "every dtype"}}));
}

TEST(SafetensorsFileTest, GivesTheSameBytesAsAColumnMajorMatrix) {
  const SafetensorsFile file(golden_path);
  const Matrix<double> matrix = file.matrix<double>("f64");  // [2, 3]
  ASSERT_EQ(matrix.rows(), 3);
  ASSERT_EQ(matrix.cols(), 2);
  EXPECT_EQ(matrix(1, 0), -1.5 / 3);
  EXPECT_EQ(matrix(0, 1), 0.5 / 3);
  EXPECT_EQ(file.matrix<float>("f16").rows(), 7);
  EXPECT_EQ(file.matrix<float>("f16").cols(), 1);
  EXPECT_EQ(file.matrix<double>("a scalar").size(), 1);
  EXPECT_EQ(file.matrix<float>("empty").cols(), 3);
}

TEST(SafetensorsFileTest, RefusesConversionsThatLoseSomething) {
  const SafetensorsFile file(golden_path);
  const std::string tensor = golden_path + ": tensor ";
  EXPECT_EQ(message_of([&] { (void)file.read<double>("i64"); }),
            tensor + "'i64' has dtype I64, expected F64, F32, F16 or BF16");
  EXPECT_EQ(message_of([&] { (void)file.read<int>("f32"); }),
            tensor + "'f32' has dtype F32, expected I64, I32 or U8");
  EXPECT_EQ(message_of([&] { (void)file.read<std::int32_t>("i64"); }),
            tensor + "'i64' holds -9223372036854775808, which is out of range");
  EXPECT_EQ(message_of([&] { (void)file.read<std::uint64_t>("i32"); }),
            tensor + "'i32' holds -2147483648, which is out of range");
  EXPECT_EQ(message_of([&] { (void)file.read<double>("f65"); }),
            golden_path + " has no tensor 'f65'");
  std::vector<double> five(5);
  EXPECT_EQ(message_of([&] { file.read("f64", std::span<double>(five)); }),
            tensor + "'f64' has 6 elements, expected 5");
}

TEST(SafetensorsFileTest, ConvertsTensorsLongerThanItsBuffer) {
  const TemporaryFolder folder;
  std::vector<float> values(40'001);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 7;
  write_safetensors(folder / "long", {tensor_view<float>("x", {40'001}, values)});
  const auto read = SafetensorsFile(folder / "long").read<double>("x");
  ASSERT_EQ(read.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(read[i], values[i]);
}

TEST(SafetensorsFileTest, AcceptsWhatTheFormatAllows) {
  const TemporaryFolder folder;
  write_bytes(folder / "spaces",
              file_of("{ \"a\" : {\"shape\": [ 2 ] , \n \"dtype\":\"U8\", \"data_offsets\": [1,3],"
                      " \"unknown\": 1}, \"b\": {\"dtype\":\"U8\",\"shape\":[1,1],"
                      "\"data_offsets\":[0,1]}, \"c\": {\"dtype\":\"F8_E4M3\",\"shape\":[0,"
                      "4611686018427387904,8],\"data_offsets\":[1,1]} }    ",
                      3));
  const SafetensorsFile file(folder / "spaces");
  EXPECT_EQ(file.entry("a").begin, 1);
  EXPECT_EQ(file.entry("c").count, 0);
  EXPECT_TRUE(file.metadata().empty());
  write_bytes(folder / "nothing", file_of("{}"));
  EXPECT_TRUE(SafetensorsFile(folder / "nothing").entries().empty());
}

TEST(WriteSafetensorsTest, GivesTheBytesOfTheOfficialImplementation) {
  const TemporaryFolder folder;
  const SafetensorsFile golden(golden_path);
  write_safetensors(folder / "copy", Content(golden).views, golden.metadata());
  EXPECT_EQ(read_bytes(folder / "copy"), read_bytes(golden_path));
}

TEST(WriteSafetensorsTest, AlignsEveryTensorToItsElements) {
  const TemporaryFolder folder;
  const std::vector<std::uint8_t> bytes(3);
  const std::vector<double> numbers(2);
  const std::vector<float> floats(1);
  const std::vector<TensorView> tensors = {tensor_view<std::uint8_t>("u", {3}, bytes),
                                           tensor_view<float>("f", {1, 1}, floats),
                                           tensor_view<double>("d", {2}, numbers)};
  write_safetensors(folder / "file", tensors, {{"key", "text"}, {"other", ""}});
  const SafetensorsFile file(folder / "file");
  EXPECT_EQ(file.entry("d").begin, 0);
  EXPECT_EQ(file.entry("f").begin, 16);
  EXPECT_EQ(file.entry("u").begin, 20);
  EXPECT_EQ(file.metadata(), (Metadata{{"key", "text"}, {"other", ""}}));
  EXPECT_EQ(read_bytes(folder / "file").size() % 8, 23u % 8);
}

TEST(WriteSafetensorsTest, RefusesWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  const std::vector<float> values(4);
  const auto attempt = [&](const std::vector<TensorView>& tensors) {
    return message_of([&] { write_safetensors(folder / "file", tensors); });
  };
  const TensorView x = tensor_view<float>("x", {4}, values);
  const std::string path = (folder / "file").string();
  EXPECT_EQ(attempt({x, x}), path + ": two tensors have the name 'x', or it is reserved");
  EXPECT_EQ(attempt({tensor_view<float>("__metadata__", {4}, values)}),
            path + ": two tensors have the name '__metadata__', or it is reserved");
  EXPECT_EQ(attempt({tensor_view<float>("x", {2, 3}, values)}),
            path + ": tensor 'x' has 16 bytes, which do not fit F32 [2, 3]");
  EXPECT_EQ(attempt({tensor_view<float>("x", {0, -1}, std::span(values).first(0))}),
            path + ": tensor 'x' has 0 bytes, which do not fit F32 [0, -1]");
  EXPECT_EQ(attempt({{"x", "F31", {4}, std::as_bytes(std::span(values))}}),
            path + ": tensor 'x' has 16 bytes, which do not fit F31 [4]");
  EXPECT_EQ(folder.size(), 0u);
}

struct BadFile {
  std::string name, bytes, sentence;
};
void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

class BadSafetensorsTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensorsTest, IsRefusedWithOneSentence) {
  const TemporaryFolder folder;
  write_bytes(folder / "bad", GetParam().bytes);
  EXPECT_EQ(message_of([&] { SafetensorsFile(folder / "bad"); }),
            (folder / "bad").string() + " is not a valid safetensors file: " + GetParam().sentence);
}

/// A header with one tensor 'x' of 16 bytes.
std::string one(const std::string& dtype, const std::string& shape,
                const std::string& offsets = "[0,16]") {
  return "{\"x\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}}";
}

/// A header with two tensors of two bytes.
std::string two(const std::string& first, const std::string& second) {
  return "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":" + first +
         "},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":" + second + "}}";
}

const std::string f32 = "\"F32\"";
const std::string natural = ", expected an integer from 0 to 2^63 - 1";

const BadFile bad_files[] = {
    {"empty", "", "it has 0 bytes, a file has at least 8"},
    {"short", "1234567", "it has 7 bytes, a file has at least 8"},
    {"header_beyond_file", file_of("{}").substr(0, 9),
     "its header has 2 bytes, the file ends after 1 of them"},
    {"header_too_long", std::string(8, '\x01') + "{}",
     "its header has 72340172838076673 bytes, at most 100000000 are allowed"},
    {"no_header", file_of(""), "its header is not JSON"},
    {"not_json", file_of("{\"x\":"), "its header is not JSON"},
    {"two_documents", file_of("{} {}"), "its header is not JSON"},
    {"zero_padding", file_of("{}" + std::string(6, '\0')), "its header is not JSON"},
    {"not_utf8", file_of("{\"\xff\":1}"), "its header is not JSON"},
    {"list", file_of("[]"), "its header is not a JSON object"},
    {"leading_space", file_of(" {}"), "its header is not a JSON object"},
    {"byte_order_mark", file_of("\xef\xbb\xbf{}"), "its header is not a JSON object"},
    {"deep_list", file_of(std::string(100'000, '[')), "its header is nested too deep"},
    {"deep_object", file_of("{\"a\":{\"b\":{\"c\":{}}}}"), "its header is nested too deep"},
    {"deep_shape", file_of(one(f32, "[[4]]"), 16), "its header is nested too deep"},
    {"metadata_list", file_of("{\"__metadata__\":[]}"), "__metadata__ is not an object"},
    {"metadata_number", file_of("{\"__metadata__\":{\"a\":1}}"),
     "__metadata__ holds 'a' that is not a string"},
    {"metadata_nested", file_of("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}"),
     "__metadata__ holds 'a' that is not a string"},
    {"same_name", file_of("{\"x\":{},\"x\":{}}"), "its header has the name 'x' twice"},
    {"same_key", file_of("{\"x\":{\"dtype\":\"U8\",\"dtype\":\"F32\"}}"),
     "its header has the name 'dtype' twice"},
    {"same_metadata", file_of("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"),
     "its header has the name 'a' twice"},
    {"not_an_object", file_of("{\"x\":3}"), "tensor 'x' is not an object"},
    {"no_dtype", file_of("{\"x\":{\"shape\":[],\"data_offsets\":[0,0]}}"),
     "tensor 'x' has no dtype"},
    {"no_shape", file_of("{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,0]}}"),
     "tensor 'x' has no shape"},
    {"no_offsets", file_of("{\"x\":{\"dtype\":\"F32\",\"shape\":[]}}"),
     "tensor 'x' has no data_offsets"},
    {"dtype_number", file_of(one("32", "[4]"), 16), "tensor 'x' has a dtype that is not a string"},
    {"dtype_unknown", file_of(one("\"F31\"", "[4]"), 16), "tensor 'x' has the unknown dtype 'F31'"},
    {"shape_not_list", file_of(one(f32, "4"), 16), "tensor 'x' has a shape that is not a list"},
    {"shape_negative", file_of(one(f32, "[-2,-2]"), 16),
     "tensor 'x' has -2 in its shape" + natural},
    {"shape_fraction", file_of(one(f32, "[4.0]"), 16), "tensor 'x' has 4.0 in its shape" + natural},
    {"shape_text", file_of(one(f32, "[\"4\"]"), 16), "tensor 'x' has \"4\" in its shape" + natural},
    {"shape_63_bits", file_of(one(f32, "[9223372036854775808]"), 16),
     "tensor 'x' has 9223372036854775808 in its shape" + natural},
    {"shape_overflow", file_of(one(f32, "[4294967296,4294967296]"), 16),
     "tensor 'x' has the shape [4294967296, 4294967296], which overflows"},
    {"bytes_overflow", file_of(one(f32, "[4611686018427387908]"), 16),
     "tensor 'x' has the shape [4611686018427387908], which overflows"},
    {"offsets_not_list", file_of(one(f32, "[4]", "16"), 16),
     "tensor 'x' has a data_offsets that is not a list"},
    {"three_offsets", file_of(one(f32, "[4]", "[0,8,16]"), 16), "tensor 'x' has 3 data_offsets"},
    {"offset_negative", file_of(one(f32, "[4]", "[-16,0]"), 16),
     "tensor 'x' has -16 in its data_offsets" + natural},
    {"offset_64_bits", file_of(one(f32, "[4]", "[0,18446744073709551616]"), 16),
     "tensor 'x' has 1.8446744073709552e+19 in its data_offsets" + natural},
    {"offsets_reversed", file_of(one(f32, "[4]", "[16,0]"), 16),
     "tensor 'x' ends before it begins"},
    {"wrong_size", file_of(one(f32, "[3]"), 16), "tensor 'x' takes 16 bytes, F32 [3] needs 12"},
    {"truncated", file_of(one(f32, "[4]"), 15),
     "tensor 'x' ends at byte 16 of the data, the file has 15"},
    {"huge_tensor", file_of(one("\"U8\"", "[9223372036854775807]", "[0,9223372036854775807]"), 16),
     "tensor 'x' ends at byte 9223372036854775807 of the data, the file has 16"},
    {"trailing", file_of(one(f32, "[4]"), 17), "1 bytes follow the last tensor"},
    {"nothing_but_data", file_of("{}", 5), "5 bytes follow the last tensor"},
    {"gap", file_of(two("[0,2]", "[3,5]"), 5), "there is a gap of 1 bytes before tensor 'b'"},
    {"gap_at_start", file_of(one(f32, "[4]", "[1,17]"), 17),
     "there is a gap of 1 bytes before tensor 'x'"},
    {"overlap", file_of(two("[0,2]", "[1,3]"), 3), "tensor 'b' overlaps the one before it"},
    {"same_bytes", file_of(two("[0,2]", "[0,2]"), 2), "tensor 'b' overlaps the one before it"},
};

INSTANTIATE_TEST_SUITE_P(Kinds, BadSafetensorsTest, ::testing::ValuesIn(bad_files),
                         [](const auto& kind) { return kind.param.name; });

/// One to four bytes changed, mostly in the header; at times cut off or continued.
std::string damaged(std::string bytes, Random& random) {
  const Index size = static_cast<Index>(bytes.size());
  const Index changes = random.below(5);
  for (Index i = 0; i < changes; ++i) {
    const Index place = random.below(random.below(4) == 0 ? size : 850);
    bytes[static_cast<std::size_t>(place)] = static_cast<char>(random.below(256));
  }
  const Index kind = random.below(8);
  if (kind == 0) bytes.resize(static_cast<std::size_t>(random.below(size)));
  if (kind == 1) bytes += std::string(static_cast<std::size_t>(random.below(20)), '\0');
  return bytes;
}

TEST(SafetensorsFileTest, LoadsOrRefusesAnyDamagedFile) {
  const TemporaryFolder folder;
  const std::string bytes = read_bytes(golden_path);
  Random random(1);
  int loaded = 0, refused = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    write_bytes(folder / "damaged", damaged(bytes, random));
    try {
      const SafetensorsFile file(folder / "damaged");
      for (const auto& [name, entry] : file.entries()) {
        EXPECT_EQ(static_cast<Index>(file.bytes(name).size()), entry.end - entry.begin);
        if (entry.dtype == "F32" || entry.dtype == "BF16") (void)file.matrix<double>(name);
      }
      ++loaded;
    } catch (const std::exception&) {
      ++refused;
    }
  }
  EXPECT_GT(loaded, 100);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace ttt
