/// @file
/// The optional components as a consumer gets them: files of tensors, and parallel loops.
#include "ttt/io/safetensors.hpp"
#include "ttt/ttt.hpp"

#if !defined(TTT_USE_OPENMP) || !TTT_USE_OPENMP
#error "ttt::openmp switches parallel loops on"
#endif

int main() { return ttt::available_threads() >= 1 ? 0 : 1; }
