#include "verification/verification.hpp"

#include <cmath>
#include <filesystem>
#include <limits>

#include "ttt/core/random.hpp"

namespace ttt::verification {

bool FileResult::pass() const {
  for (const auto& [name, group] : groups)
    if (!(group.error <= group.tolerance)) return false;
  return true;
}

const GroupResult& FileResult::worst() const {
  const GroupResult* worst = nullptr;
  for (const auto& [name, group] : groups)
    if (!worst || group.error * worst->tolerance > worst->error * group.tolerance) worst = &group;
  if (!worst) throw std::runtime_error(file + ": it stores no result that could be checked");
  return *worst;
}

nlohmann::json FileResult::json() const {
  nlohmann::json group_errors = nlohmann::json::object();
  for (const auto& [name, group] : groups)
    group_errors[name] = {{"max_relative_error", group.error},
                          {"tolerance", group.tolerance},
                          {"worst_tensor", group.tensor}};
  return {{"file", file},
          {"kind", kind},
          {"pass", pass()},
          {"tensors_checked", checked.size()},
          {"max_relative_error", worst().error},
          {"worst_tensor", worst().tensor},
          {"tolerance", worst().tolerance},
          {"groups", group_errors}};
}

namespace {
std::string metadata_text(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end())
    throw Unsupported(file.path() + ": its metadata has no '" + key +
                      "', expected a reference file of this library's format");
  return found->second;
}
}  // namespace

ReferenceFile::ReferenceFile(const std::string& path, Gelu gelu, bool single)
    : file_(path), single_(single) {
  result_.file = path;
  result_.kind = metadata_text(file_, "kind");
  const auto& metadata = file_.metadata();
  if (metadata.contains("config"))
    mlp_ = config().value("ttt_layer_type", "linear") == "mlp";
  else if (metadata.contains("ttt_layer_type"))
    mlp_ = text("ttt_layer_type") == "mlp";
  const bool made_rounded =
      result_.kind != "ttt_inner_loop" &&
      !(metadata.contains("gelu_constants") && metadata.at("gelu_constants") == "exact");
  rounded_gelu_ = mlp_ && (gelu == Gelu::rounded || (gelu == Gelu::automatic && made_rounded));
}

std::string ReferenceFile::text(const std::string& key) const { return metadata_text(file_, key); }

Index ReferenceFile::number(const std::string& key) const {
  try {
    return std::stoll(text(key));
  } catch (const std::logic_error&) {
    throw Unsupported(file_.path() + ": its metadata '" + key + "' is '" + text(key) +
                      "', expected a whole number");
  }
}

nlohmann::json ReferenceFile::config() const {
  const auto json = nlohmann::json::parse(text("config"), nullptr, false);
  if (!json.is_object())
    throw Unsupported(file_.path() + ": its metadata 'config' is not a JSON object");
  return json;
}

std::vector<std::int32_t> ReferenceFile::ids() {
  use("input_ids");
  return file_.read<std::int32_t>("input_ids");
}

void ReferenceFile::compare_double(const std::string& name, const Matrix<double>& actual,
                                   const std::string& variant) {
  const Matrix<double> expected = file_.matrix<double>(name);
  double error = std::numeric_limits<double>::infinity();
  if (actual.size() == expected.size()) {
    const auto difference = actual.reshaped() - expected.reshaped();
    const double scale = expected.cwiseAbs().maxCoeff();
    error = difference.cwiseAbs().maxCoeff() / (scale > 0 ? scale : 1.0);
    if (!actual.allFinite() || !expected.allFinite())
      error = std::numeric_limits<double>::infinity();
  }
  const std::string group = name.substr(0, name.find('.'));
  auto [entry, first] = result_.groups.try_emplace(group);
  if (first || !(error <= entry->second.error))
    entry->second = {error, tolerance(group), variant.empty() ? name : name + " (" + variant + ")"};
  result_.checked.insert(name);
  use(name);
}

/// Relative to the largest entry of each tensor. Double: what the files promise. Float: measured
/// for the official code in float32, with a margin of about five.
double ReferenceFile::tolerance(const std::string& group) const {
  const bool gradient = group == "grad";
  const bool bare = !file_.metadata().contains("config");  // inner loop, theorems
  if (single_) {
    if (bare) return 1e-5;
    if (result_.kind == "hf_causal_lm") return gradient ? 5e-4 : 5e-5;
    return gradient ? (mlp_ ? 3e-4 : 2e-4) : 2e-5;
  }
  if (mlp_ && bare) return 1e-8;
  if (mlp_) return rounded_gelu_ || file_.metadata().contains("gelu_constants") ? 1e-10 : 1e-8;
  return bare ? 1e-10 : 1e-9;
}

FileResult ReferenceFile::finish() {
  for (const auto& [name, entry] : file_.entries())
    if (!used_.contains(name))
      throw std::runtime_error(file_.path() + ": nothing was found that computes its tensor '" +
                               name + "'");
  result_.worst();  // throws where nothing was checked
  return result_;
}

std::vector<Index> random_pieces(Index tokens, std::uint64_t seed) {
  Random random(seed);
  std::vector<Index> pieces;
  for (Index left = tokens; left > 0; left -= pieces.back())
    pieces.push_back(std::min(left, 1 + random.below(random.below(2) == 0 ? 3 : 9)));
  return pieces;
}

template <class S>
FileResult verify_file(const std::string& path, Gelu gelu) {
  if (!std::filesystem::exists(path)) throw Unsupported(path + ": there is no such file");
  ReferenceFile reference(path, gelu, std::same_as<S, float>);
  const std::string& kind = reference.kind();
  if (kind == "ttt_inner_loop")
    verify_inner_loop<S>(reference);
  else if (kind == "theorem1")
    verify_theorem1<S>(reference);
  else if (kind == "theorem2")
    verify_theorem2<S>(reference);
  else if (kind == "deltanet")
    verify_deltanet<S>(reference);
  else if (kind == "ttt_layer")
    verify_layer<S>(reference);
  else if (kind == "ttt_causal_lm")
    verify_language_model<S>(reference);
  else if (kind == "ttt_decode")
    verify_decode<S>(reference);
  else if (kind == "hf_causal_lm")
    verify_hugging_face<S>(reference);
  else
    throw Unsupported(path + ": kind '" + kind + "' is not supported");
  return reference.finish();
}

template FileResult verify_file<float>(const std::string&, Gelu);
template FileResult verify_file<double>(const std::string&, Gelu);

}  // namespace ttt::verification
