// `verify` passes golden files, notices a change of 1e-4 in any tensor that they store, whether
// input or result, and refuses files that it cannot check.
#include "verification/verification.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>

#include "support/reference_copy.hpp"
#include "support/temporary_folder.hpp"
#include "ttt/core/parallel.hpp"

namespace ttt::verification {
namespace {

using testing::largest;
using testing::message_of;
using testing::read_bytes;
using testing::ReferenceCopy;
using testing::TemporaryFolder;
using testing::write_bytes;

std::string golden_path(const std::string& name) {
  return std::string(TTT_GOLDEN_DIR) + "/" + name + ".safetensors";
}

bool is_result(const std::string& name) {
  for (const char* prefix : {"output", "grad.", "mid.", "logits", "loss", "cache."})
    if (name.starts_with(prefix)) return true;
  return false;
}

/// The part of "name (variant)" that stands in the file.
std::string without_variant(const std::string& tensor) {
  return tensor.substr(0, tensor.find(' '));
}

/// Changes one element by 1e-4 of itself, the largest. Two tensors differ: a token id becomes
/// another one, and of learnable_token_idx the largest entry has no effect where the factor
/// 1 / (i + 1) + idx[i] is negative, since it is cut off at 0: the largest of the others.
void change(const std::string& name, ReferenceCopy::Tensor& tensor) {
  if (tensor.dtype == "I64") {
    auto& id = tensor.values<std::int64_t>()[3];
    id = id > 0 ? id - 1 : 1;
    return;
  }
  const auto values = tensor.values<double>();
  double* element = &largest(values);
  if (name.ends_with("learnable_token_idx") && !is_result(name)) {
    element = nullptr;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (1 / (static_cast<double>(i) + 1) + values[i] > 0 &&
          (!element || std::abs(values[i]) > std::abs(*element)))
        element = &values[i];
    ASSERT_NE(element, nullptr);
  }
  ASSERT_NE(*element, 0) << name;
  *element *= 1 + 1e-4;
}

/// The files are small: a second thread would only be waited for.
class GoldenFileTest : public ::testing::TestWithParam<std::string> {
 protected:
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  void SetUp() override { omp_set_num_threads(1); }
  void TearDown() override { omp_set_num_threads(threads_); }
  int threads_ = omp_get_max_threads();
#endif
};

TEST_P(GoldenFileTest, PassesInDoubleAndFloat) {
  const FileResult in_double = verify_file<double>(golden_path(GetParam()));
  const FileResult in_float = verify_file<float>(golden_path(GetParam()));
  EXPECT_TRUE(in_double.pass()) << in_double.worst().tensor << ' ' << in_double.worst().error;
  EXPECT_TRUE(in_float.pass()) << in_float.worst().tensor << ' ' << in_float.worst().error;
  EXPECT_LT(in_double.worst().error, 1e-11);  // what the files promise
  EXPECT_GT(in_float.worst().error, 1e-10);   // else it was not computed in float
  const ReferenceCopy copy(golden_path(GetParam()));
  std::set<std::string> results;
  for (const auto& [name, tensor] : copy.tensors)
    if (is_result(name)) results.insert(name);
  EXPECT_EQ(in_double.checked, results);
  EXPECT_EQ(in_float.checked, results);
}

TEST_P(GoldenFileTest, FailsWhenAnyTensorIsChanged) {
  const TemporaryFolder folder;
  const ReferenceCopy original(golden_path(GetParam()));
  for (const auto& [name, tensor] : original.tensors) {
    ReferenceCopy copy = original;
    change(name, copy.tensors[name]);
    ASSERT_NE(copy.tensors[name].bytes, tensor.bytes) << name;
    copy.write(folder / "changed.safetensors");
    const FileResult result = verify_file<double>(folder / "changed.safetensors");
    EXPECT_FALSE(result.pass()) << name << " was changed";
    const std::string worst = without_variant(result.worst().tensor);
    if (is_result(name))
      EXPECT_EQ(worst, name);
    else
      EXPECT_TRUE(result.checked.contains(worst)) << worst;
  }
}

TEST_P(GoldenFileTest, FailsInFloatWhenAnyResultIsChangedByAHundredth) {
  const TemporaryFolder folder;
  const ReferenceCopy original(golden_path(GetParam()));
  for (const auto& [name, tensor] : original.tensors) {
    if (!is_result(name)) continue;
    ReferenceCopy copy = original;
    largest(copy.tensors[name].values<double>()) *= 1.01;
    copy.write(folder / "changed.safetensors");
    const FileResult result = verify_file<float>(folder / "changed.safetensors");
    EXPECT_FALSE(result.pass()) << name << " was changed";
    EXPECT_EQ(without_variant(result.worst().tensor), name);
  }
}

TEST_P(GoldenFileTest, FailsWhenANumberIsNotFinite) {
  const TemporaryFolder folder;
  const ReferenceCopy original(golden_path(GetParam()));
  for (const auto& [name, tensor] : original.tensors) {
    if (tensor.dtype != "F64") continue;
    for (const double value : {std::nan(""), HUGE_VAL}) {
      ReferenceCopy copy = original;
      auto& element = copy.tensors[name].values<double>().front();
      element = value;
      copy.write(folder / "changed.safetensors");
      EXPECT_FALSE(verify_file<double>(folder / "changed.safetensors").pass())
          << name << " holds " << value;
    }
  }
}

TEST_P(GoldenFileTest, RefusesATensorThatNothingComputes) {
  const TemporaryFolder folder;
  for (const char* name : {"grad.unknown", "output.unknown", "unknown"}) {
    ReferenceCopy copy(golden_path(GetParam()));
    copy.tensors[name] = {"F64", {1}, std::vector<std::byte>(8)};
    copy.write(folder / "more.safetensors");
    const std::string message =
        message_of([&] { verify_file<double>(folder / "more.safetensors"); });
    EXPECT_NE(message.find(name), message.npos) << message;
    EXPECT_NE(message.find("more.safetensors"), message.npos) << message;
  }
}

/// Every file that stands in the golden folder itself.
std::vector<std::string> golden_files() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(TTT_GOLDEN_DIR))
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Verify, GoldenFileTest, ::testing::ValuesIn(golden_files()),
                         [](const auto& information) { return information.param; });

TEST(GoldenFilesTest, HoldEveryKind) {
  std::set<std::string> kinds;
  for (const std::string& name : golden_files()) {
    const SafetensorsFile file(golden_path(name));
    const auto& metadata = file.metadata();
    std::string kind = metadata.at("kind");
    if (metadata.contains("ttt_layer_type")) kind += " " + metadata.at("ttt_layer_type");
    if (metadata.contains("config"))
      kind += " " +
              nlohmann::json::parse(metadata.at("config")).at("ttt_layer_type").get<std::string>();
    kinds.insert(kind);
  }
  EXPECT_EQ(kinds,
            (std::set<std::string>{"ttt_layer linear", "ttt_layer mlp", "ttt_causal_lm linear",
                                   "ttt_causal_lm mlp", "ttt_decode linear", "ttt_decode mlp",
                                   "ttt_inner_loop linear", "ttt_inner_loop mlp", "theorem1",
                                   "theorem2", "deltanet"}));
}

/// A copy of a golden file after `edit`, in a folder that lives as long as this object.
struct EditedFile {
  TemporaryFolder folder;
  std::string path = folder / "edited.safetensors";

  template <class Edit>
  EditedFile(const std::string& golden, const Edit& edit) {
    ReferenceCopy copy(golden_path(golden));
    edit(copy);
    copy.write(path);
  }
};

TEST(VerifyFileTest, SaysWhatIsNotSupported) {
  const auto message = [](const auto& edit) {
    const EditedFile file("ttt_layer_linear_plain_b4_t10", edit);
    EXPECT_THROW(verify_file<double>(file.path), Unsupported);
    const std::string text = message_of([&] { verify_file<double>(file.path); });
    EXPECT_TRUE(text.starts_with(file.path + ": ")) << text;
    return text.substr(file.path.size() + 2);
  };
  EXPECT_EQ(message([](auto& copy) { copy.metadata["kind"] = "poem"; }),
            "kind 'poem' is not supported");
  EXPECT_EQ(message([](auto& copy) {
              copy.metadata["kind"] = "hf_causal_lm";
              copy.metadata["class"] = "PoemForCausalLM";
            }),
            "class PoemForCausalLM is not supported");
  EXPECT_EQ(message([](auto& copy) { copy.metadata.erase("kind"); }),
            "its metadata has no 'kind', expected a reference file of this library's format");
  EXPECT_EQ(message([](auto& copy) { copy.metadata.erase("config"); }),
            "its metadata has no 'config', expected a reference file of this library's format");
  EXPECT_EQ(message([](auto& copy) { copy.metadata["config"] = "[8, 2"; }),
            "its metadata 'config' is not a JSON object");

  const EditedFile tree("inner_linear_b4",
                        [](auto& copy) { copy.metadata["ttt_layer_type"] = "tree"; });
  EXPECT_EQ(message_of([&] { verify_file<double>(tree.path); }),
            tree.path + ": inner model 'tree' is not supported");
  const EditedFile some("ttt_decode_mlp_T_b4_p4_t11",
                        [](auto& copy) { copy.metadata["prefill_len"] = "some"; });
  EXPECT_EQ(message_of([&] { verify_file<double>(some.path); }),
            some.path + ": its metadata 'prefill_len' is 'some', expected a whole number");
  EXPECT_EQ(message_of([] { verify_file<double>("/nowhere/at/all"); }),
            "/nowhere/at/all: there is no such file");
}

TEST(VerifyFileTest, NamesATensorThatIsMissing) {
  for (const auto& golden : golden_files()) {
    const ReferenceCopy original(golden_path(golden));
    for (const auto& [name, tensor] : original.tensors) {
      if (is_result(name)) continue;
      const EditedFile file(golden,
                            [&, &missing = name](auto& copy) { copy.tensors.erase(missing); });
      const std::string message = message_of([&] { verify_file<double>(file.path); });
      EXPECT_NE(message.find(name), message.npos) << golden << ", " << name << ": " << message;
    }
  }
}

TEST(VerifyFileTest, RefusesAFileWithoutResults) {
  for (const std::string& golden : golden_files()) {
    const EditedFile file(golden, [](auto& copy) {
      std::erase_if(copy.tensors, [](const auto& item) { return is_result(item.first); });
    });
    EXPECT_NE(message_of([&] { verify_file<double>(file.path); }), "") << golden;
  }
}

/// What the program printed, and its exit code.
struct ProgramRun {
  std::string output;
  int exit_code;
};

ProgramRun run_verify(const std::string& arguments) {
  const std::string command = "OMP_NUM_THREADS=1 " TTT_VERIFY_PROGRAM " " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error("cannot run " + command);
  ProgramRun run{};
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) run.output += static_cast<char>(c);
  const int status = ::pclose(pipe);
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return run;
}

std::vector<nlohmann::json> json_lines(const std::string& text) {
  std::vector<nlohmann::json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

const std::string layer_file = golden_path("ttt_layer_linear_plain_b4_t10");
const std::string theorem_file = golden_path("theorem1_linear_attention");

TEST(VerifyProgramTest, PrintsOneJsonObjectALine) {
  for (const std::string scalar : {"double", "float"}) {
    const ProgramRun run =
        run_verify("--json --scalar " + scalar + " " + layer_file + " " + theorem_file);
    EXPECT_EQ(run.exit_code, 0) << run.output;
    const auto lines = json_lines(run.output);
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_EQ(lines[0].at("file"), layer_file);
    EXPECT_EQ(lines[0].at("kind"), "ttt_layer");
    EXPECT_EQ(lines[1].at("kind"), "theorem1");
    EXPECT_EQ(lines[0].at("tensors_checked"), 23);
    EXPECT_EQ(lines[1].at("tensors_checked"), 3);
    for (const auto& line : lines) {
      EXPECT_EQ(line.at("pass"), true);
      EXPECT_TRUE(line.at("worst_tensor").is_string());
      EXPECT_LE(line.at("max_relative_error").get<double>(), line.at("tolerance").get<double>());
    }
    const bool single = scalar == "float";
    EXPECT_EQ(lines[1].at("tolerance"), single ? 1e-5 : 1e-10);
    EXPECT_EQ(lines[1].at("max_relative_error").get<double>() > 1e-10, single);
  }
}

TEST(VerifyProgramTest, PrintsALineForEachFile) {
  const ProgramRun run = run_verify(layer_file + " " + theorem_file);
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 2);
  EXPECT_TRUE(run.output.starts_with("pass  ttt_layer ")) << run.output;
}

TEST(VerifyProgramTest, ExitsWithOneWhereAFileFails) {
  const EditedFile changed("ttt_layer_linear_plain_b4_t10", [](auto& copy) {
    largest(copy.tensors.at("grad.W1").template values<double>()) *= 1 + 1e-4;
  });
  const ProgramRun text = run_verify(changed.path + " " + theorem_file);
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_TRUE(text.output.starts_with("FAIL  ttt_layer ")) << text.output;
  EXPECT_NE(text.output.find(" grad.W1 "), text.output.npos) << text.output;
  EXPECT_NE(text.output.find("\npass  theorem1 "), text.output.npos) << text.output;

  const ProgramRun json = run_verify("--json " + changed.path);
  EXPECT_EQ(json.exit_code, 1);
  const auto lines = json_lines(json.output);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].at("pass"), false);
  EXPECT_EQ(without_variant(lines[0].at("worst_tensor").get<std::string>()), "grad.W1");
  EXPECT_NEAR(lines[0].at("max_relative_error").get<double>(), 1e-4, 1e-8);
}

TEST(VerifyProgramTest, ExitsWithTwoAndASentenceWhereAFileCannotBeChecked) {
  const TemporaryFolder folder;
  const auto expect_refusal = [](const std::string& path, const std::string& reason) {
    const ProgramRun run = run_verify("--json " + path + " " + theorem_file);
    EXPECT_EQ(run.exit_code, 2) << path;
    EXPECT_NE(run.output.find("verify: "), run.output.npos) << run.output;
    EXPECT_NE(run.output.find(path), run.output.npos) << run.output;
    EXPECT_NE(run.output.find(reason), run.output.npos) << run.output;
    // The other file is still checked.
    EXPECT_NE(run.output.find("\"pass\":true"), run.output.npos) << run.output;
    EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 2) << run.output;
  };
  expect_refusal(folder / "missing.safetensors", "there is no such file");
  expect_refusal(TTT_GOLDEN_DIR, "not a regular file");
  write_bytes(folder / "cut.safetensors", read_bytes(layer_file).substr(0, 20000));
  expect_refusal(folder / "cut.safetensors", "is not a valid safetensors file");
  write_bytes(folder / "text.safetensors", "Shall I compare thee to a summer's day?");
  expect_refusal(folder / "text.safetensors", "is not a valid safetensors file");
  write_bytes(folder / "empty.safetensors", "");
  expect_refusal(folder / "empty.safetensors", "is not a valid safetensors file");
  expect_refusal(golden_path("io/dtypes"), "its metadata has no 'kind'");
  expect_refusal(golden_path("nn/activations"), "kind 'activations' is not supported");
  const EditedFile more("ttt_lm_mlp_T", [](auto& copy) {
    copy.tensors["grad.more"] = {"F64", {1}, std::vector<std::byte>(8)};
  });
  expect_refusal(more.path, "nothing was found that computes its tensor 'grad.more'");
  const EditedFile poem("ttt_lm_mlp_T", [](auto& copy) {
    copy.metadata["kind"] = "hf_causal_lm";
    copy.metadata["class"] = "PoemForCausalLM";
  });
  expect_refusal(poem.path, "class PoemForCausalLM is not supported");
}

TEST(VerifyProgramTest, ExitsWithTwoForABadCommandLineAndZeroForHelp) {
  EXPECT_EQ(run_verify("").exit_code, 2);
  EXPECT_EQ(run_verify("--scalar half " + layer_file).exit_code, 2);
  EXPECT_EQ(run_verify("--gelu other " + layer_file).exit_code, 2);
  EXPECT_EQ(run_verify("--unknown " + layer_file).exit_code, 2);
  EXPECT_EQ(run_verify("--help").exit_code, 0);
}

TEST(VerifyProgramTest, GeluChoosesTheConstants) {
  const std::string file = golden_path("ttt_layer_mlp_plain_b4_t9");
  EXPECT_EQ(run_verify("--gelu exact " + file).exit_code, 0);
  const ProgramRun rounded = run_verify("--json --gelu rounded " + file);
  const auto lines = json_lines(rounded.output);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_GT(lines[0].at("max_relative_error").get<double>(), 1e-11);
  EXPECT_LT(lines[0].at("max_relative_error").get<double>(), 1e-8);
}

}  // namespace
}  // namespace ttt::verification
