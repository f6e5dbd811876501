#include "perplexity/glossary.hpp"

#include <algorithm>
#include <set>

#include "support/format.hpp"

namespace ttt::examples {
namespace {

constexpr const char* measures = R"html(<h2>What the words mean</h2>
<dl>
<dt>Bits per byte</dt>
<dd>How surprised a model is by the next byte of a text that it was not trained on, on average:
minus the logarithm to base two of the probability that it gave to that byte. Knowing nothing costs
8 bits; less is better. Nats per byte are the same in natural logarithms (one bit is 0.693 nats).
± is the standard error of the mean.</dd>
<dt>Perplexity per byte</dt>
<dd>2 to the power of the bits per byte: the number of equally likely bytes that would be as hard
to choose from.</dd>
<dt>Context</dt>
<dd>How many bytes of a text a model sees in one piece. Papers count tokens of about four bytes
each: a context of 4096 bytes is about 1024 of their tokens.</dd>
)html";

struct Term {
  const char* prefix;  // of the layers that it explains
  const char* html;
};

constexpr Term layer_terms[] = {{"ttt-", R"html(<dt>Test-time training (TTT)</dt>
<dd>A layer whose memory is a small model. While the layer reads, that inner model learns from every
piece of text by gradient descent, also in use, after training is over. <i>ttt-linear</i> has a
linear inner model, <i>ttt-mlp</i> one with a hidden layer; a name that ends in <i>-t</i> is the
variant with a Transformer's surroundings.</dd>
)html"},
                                {"attention", R"html(<dt>attention</dt>
<dd>The layer of Transformers: every byte looks back at all bytes before it. Its state holds all of
them, so that it grows with the text, as does the time for one more byte.</dd>
)html"},
                                {"window-attention", R"html(<dt>window-attention</dt>
<dd>Attention that looks back at the nearest bytes only, as many as its window holds: its state stops
growing there, and what lies further back is forgotten.</dd>
)html"},
                                {"mamba", R"html(<dt>mamba</dt>
<dd>A state space layer (Gu and Dao 2023): a memory of fixed size, each part of which fades at a rate
that depends on what is read.</dd>
)html"},
                                {"lstm", R"html(<dt>lstm</dt>
<dd>Long short-term memory (Hochreiter and Schmidhuber 1997): a recurrent layer whose memory is a
vector, with gates that decide what is kept, added and shown.</dd>
)html"},
                                {"linear-attention", R"html(<dt>linear-attention</dt>
<dd>Attention without its exponential (Katharopoulos et al. 2020): what every byte adds is summed into
a matrix of fixed size, and nothing is ever forgotten.</dd>
)html"},
                                {"hybrid", R"html(<dt>hybrid</dt>
<dd>Blocks with window attention and with TTT-Linear in turn: one remembers the nearest bytes exactly,
the other learns from all of them.</dd>
)html"}};

constexpr const char* inner_loop = R"html(<dt>Rate × 0, 0.5, 1, 2</dt>
<dd>The same trained model reads the same bytes with the learning rate of its inner models scaled.
With rate × 0 nothing is learned while reading: the distance between that curve and rate × 1 is what
learning while reading is worth.</dd>
<dt>Inner loss</dt>
<dd>What the inner models minimise. W₀ are the weights with which every text begins. If the loss
before a token's own step lies below that under W₀, what was learned from earlier tokens helps with
later ones.</dd>
)html";

constexpr const char* others = R"html(<dt>count-1 … count-4</dt>
<dd>No neural network: how often each byte followed the last 1 to 4 bytes in the training text
(smoothed by the method of Kneser and Ney). The yardstick that a model must beat to have learned
more than spelling.</dd>
<dt>State</dt>
<dd>The memory that a model carries from one byte to the next while it reads one text.</dd>
<dt>FLOPs</dt>
<dd>Floating-point operations: the additions and multiplications of training, counted from the sizes
of the layers. Layers whose arithmetic is the same may still differ in time.</dd>
<dt>Equal bytes, equal FLOPs, equal seconds</dt>
<dd>What two layers are given alike before their losses are compared: text, arithmetic, or time on
this machine.</dd>
<dt>Batch</dt>
<dd>Streams of text that are read or written at the same time.</dd>
</dl>
)html";

/// The hybrid has TTT layers too.
bool is_named(const std::string& layer, const std::string& prefix) {
  return layer.rfind(prefix, 0) == 0 || (prefix == "ttt-" && layer == "hybrid");
}

bool explains(const Term& term, const std::vector<std::string>& layers) {
  return std::any_of(layers.begin(), layers.end(),
                     [&](const std::string& layer) { return is_named(layer, term.prefix); });
}

}  // namespace

std::string glossary_html(const std::vector<std::string>& layers) {
  std::string html = measures;
  for (const Term& term : layer_terms)
    if (explains(term, layers)) html += term.html;
  if (explains(layer_terms[0], layers)) html += inner_loop;
  return html + others;
}

std::string limits_text(const std::vector<ResultRow>& results) {
  std::int64_t fewest = 0, most = 0;
  std::set<std::uint64_t> seeds;
  for (const ResultRow& row : results) {
    if (is_count_layer(row.layer)) continue;
    fewest = seeds.empty() ? row.parameters : std::min(fewest, row.parameters);
    most = std::max(most, row.parameters);
    seeds.insert(row.seed);
  }
  if (seeds.empty()) return "";
  const std::string low = compact(static_cast<double>(fewest));
  const std::string high = compact(static_cast<double>(most));
  const std::string once =
      "Each was trained once, with one seed: the luck of a run is not in the "
      "± of a result, which only says how much other windows of these test "
      "texts could change it; other texts would differ more.";
  const std::string often = "Each was trained with " + std::to_string(seeds.size()) +
                            " seeds, too few to know the luck of a run well.";
  return "These models have " + (low == high ? low : low + " to " + high) +
         " parameters, read bytes where papers count tokens of about four bytes each, and were "
         "trained for a short time on one collection of text. " +
         (seeds.size() == 1 ? once : often) +
         " So nothing follows for models of 125 million to 1.3 billion parameters: an order found "
         "here may be another one there. Times are those of this machine and this program; other "
         "hardware and other programs may favour other layers.";
}

}  // namespace ttt::examples
