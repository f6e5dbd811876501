// Parameters with a tensor that fields() does not list.
#include "ttt/core/fields.hpp"

struct Parameters {
  ttt::Matrix<float> weight, forgotten;
  static auto fields(auto& self) { return std::tuple(ttt::field("weight", self.weight)); }
};

ttt::Index count(const Parameters& parameters) { return ttt::count_elements(parameters); }
