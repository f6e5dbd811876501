// All reference values in the folder that TTT_REFERENCE_DIR names, those of the official
// implementation among them: every file of a kind that `verify` knows passes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>

#include "verification/verification.hpp"

namespace ttt::verification {
namespace {

const char* reference_folder() { return std::getenv("TTT_REFERENCE_DIR"); }

/// The metadata `key` of a file; empty where it cannot be read, so that listing never fails.
std::string metadata_of(const std::string& path, const std::string& key) {
  try {
    return SafetensorsFile(path).metadata().at(key);
  } catch (const std::exception&) {
    return {};
  }
}

bool is_other_model(const std::string& path) { return metadata_of(path, "kind") == "hf_causal_lm"; }

/// Empty where the variable is not set or names no folder.
std::vector<std::string> reference_files() {
  std::vector<std::string> files;
  std::error_code error;
  if (reference_folder())
    for (const auto& entry : std::filesystem::directory_iterator(reference_folder(), error))
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> ttt_files() {
  auto files = reference_files();
  std::erase_if(files, is_other_model);
  return files;
}

std::vector<std::string> other_models() {
  auto files = reference_files();
  std::erase_if(files, [](const std::string& path) { return !is_other_model(path); });
  return files;
}

std::vector<std::string> official_mlp_files() {
  auto files = ttt_files();
  std::erase_if(files, [](const std::string& path) {
    return metadata_of(path, "config").find("\"ttt_layer_type\": \"mlp\"") == std::string::npos;
  });
  return files;
}

void expect_pass(const FileResult& result, double largest_tolerance) {
  EXPECT_FALSE(result.checked.empty());
  for (const auto& [name, group] : result.groups) {
    EXPECT_LE(group.error, group.tolerance) << group.tensor;
    EXPECT_LE(group.tolerance, largest_tolerance) << name;
  }
  EXPECT_TRUE(result.pass());
}

std::string name_of(const ::testing::TestParamInfo<std::string>& information) {
  std::string name = std::filesystem::path(information.param).stem().string();
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

class ReferenceTest : public ::testing::TestWithParam<std::string> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ReferenceTest);
INSTANTIATE_TEST_SUITE_P(File, ReferenceTest, ::testing::ValuesIn(ttt_files()), name_of);

TEST_P(ReferenceTest, PassesInDouble) { expect_pass(verify_file<double>(GetParam()), 1e-8); }

TEST_P(ReferenceTest, PassesInFloat) { expect_pass(verify_file<float>(GetParam()), 3e-4); }

/// The official code rounds two constants of GELU, which `verify` does too; the exact ones change
/// results by about 1e-9.
class ReferenceExactGeluTest : public ::testing::TestWithParam<std::string> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ReferenceExactGeluTest);
INSTANTIATE_TEST_SUITE_P(File, ReferenceExactGeluTest, ::testing::ValuesIn(official_mlp_files()),
                         name_of);

TEST_P(ReferenceExactGeluTest, PassesInDouble) {
  const FileResult exact = verify_file<double>(GetParam(), Gelu::exact);
  expect_pass(exact, 1e-8);
  EXPECT_GT(exact.worst().error, verify_file<double>(GetParam()).worst().error);
}

TEST(ReferenceFolderTest, HoldsReferenceFiles) {
  if (!reference_folder())
    GTEST_SKIP() << "reference values are not checked: set TTT_REFERENCE_DIR to a folder of them, "
                    "files *.safetensors as tests/golden/README.md describes";
  ASSERT_TRUE(std::filesystem::is_directory(reference_folder()))
      << "TTT_REFERENCE_DIR is '" << reference_folder() << "', which is no folder";
  EXPECT_FALSE(ttt_files().empty())
      << reference_folder() << " holds no reference file of a TTT layer or model";
}

bool is_supported(const std::string& path) {
  const std::string name = metadata_of(path, "class");
  return name == "LlamaForCausalLM" || name == "MambaForCausalLM";
}

/// Attention and Mamba pass; a model of another class is refused by its name.
class ReferenceOtherModelTest : public ::testing::TestWithParam<std::string> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ReferenceOtherModelTest);
INSTANTIATE_TEST_SUITE_P(File, ReferenceOtherModelTest, ::testing::ValuesIn(other_models()),
                         name_of);

TEST_P(ReferenceOtherModelTest, PassesOrIsRefusedByName) {
  if (is_supported(GetParam())) {
    expect_pass(verify_file<double>(GetParam()), 1e-9);
    expect_pass(verify_file<float>(GetParam()), 5e-4);
    return;
  }
  try {
    verify_file<double>(GetParam());
    ADD_FAILURE() << "a model of an unknown class was verified";
  } catch (const Unsupported& error) {
    EXPECT_EQ(error.what(),
              GetParam() + ": class " + metadata_of(GetParam(), "class") + " is not supported");
  }
}

}  // namespace
}  // namespace ttt::verification
