// Trains language models whose layers learn while they read, on a text of the user's, and compares
// them: one table, CSV files, a report with pictures. See --help.
#include <exception>
#include <iostream>

#include "perplexity/experiment.hpp"
#include "support/interrupt.hpp"
#include "support/threads.hpp"

int main(int argc, char** argv) {
  using namespace ttt::examples;
  wait_briefly(argv);
  Options options;
  if (const auto exit_code = parse_options(argc, argv, options)) return *exit_code;
  catch_interrupts();
  try {
    const int threads = use_threads(options.threads);
    Experiment(options, this_machine(threads, argc, argv)).run();
  } catch (const Interrupted& interrupted) {
    std::cerr << "\nperplexity: " << interrupted.what() << '\n';
    return 130;
  } catch (const std::exception& error) {
    std::cerr << "\nperplexity: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
