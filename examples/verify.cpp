// Proves that this library reproduces reference values made elsewhere.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>

#include "verification/verification.hpp"

namespace {

using ttt::verification::FileResult;
using ttt::verification::Gelu;

void print(const FileResult& result) {
  const auto& worst = result.worst();
  std::printf("%s  %-15s %3zu tensors, worst error %.1e of %.0e allowed, in %s  (%s)\n",
              result.pass() ? "pass" : "FAIL", result.kind.c_str(), result.checked.size(),
              worst.error, worst.tolerance, worst.tensor.c_str(), result.file.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Recomputes everything that reference files store - outputs, intermediate values, every\n"
      "gradient, decoding token by token - whole and in pieces cut at random, and compares.\n"
      "Errors are relative to the largest entry of each tensor.\n"
      "Exit code: 0 all files pass, 1 one does not, 2 a file can't be read or is of a kind or "
      "class\n"
      "that is not supported, or the command line is wrong.");
  std::vector<std::string> files;
  std::string scalar = "double";
  std::string gelu = "auto";
  bool json = false;
  app.add_option("FILE", files, "Reference files (.safetensors)")->required();
  app.add_option("--scalar", scalar, "Number type to compute in")
      ->check(CLI::IsMember({"double", "float"}))
      ->capture_default_str();
  app.add_option("--gelu", gelu,
                 "Constants in TTT-MLP's inner gradient: the official code's are rounded; auto: "
                 "those that the file was made with")
      ->check(CLI::IsMember({"auto", "exact", "rounded"}))
      ->capture_default_str();
  app.add_flag("--json", json, "One JSON object a line for each file");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  const Gelu constants = gelu == "auto"    ? Gelu::automatic
                         : gelu == "exact" ? Gelu::exact
                                           : Gelu::rounded;
  int exit_code = 0;
  for (const std::string& file : files) {
    try {
      const FileResult result = scalar == "double"
                                    ? ttt::verification::verify_file<double>(file, constants)
                                    : ttt::verification::verify_file<float>(file, constants);
      if (json)
        std::cout << result.json().dump() << std::endl;
      else
        print(result);
      if (!result.pass()) exit_code = std::max(exit_code, 1);
    } catch (const std::exception& error) {
      std::cerr << "verify: " << error.what() << '\n';
      exit_code = 2;
    }
  }
  return exit_code;
}
