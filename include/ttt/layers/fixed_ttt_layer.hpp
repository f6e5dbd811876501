/// @file
/// TTT layers of sizes that their types say, one token at a time: for audio, robots and
/// microcontrollers. Layer and state are plain blocks of memory, and nothing is ever allocated.
///   [k; q; v; g] = one product with x (share_qk: k, q = two convolutions of one projection)
///   k, q           turned by the place in the mini-batch: a pair of channels is a complex number
///   z            = the inner loop's answer, head by head (fixed_ttt_linear.hpp, fixed_ttt_mlp.hpp)
///   y            = W_o' (gelu(g) . LN(z))                              (g if switched on)
/// Training, and reading many tokens at once, are the dynamic layer's.
/// Source: Sun et al. 2024 (arXiv 2407.04620); the step of ttt_layer.hpp, number by number.
#pragma once

#include <complex>
#include <type_traits>

#include "ttt/layers/fixed_ttt_head.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt {

/// The switches of `TTTConfig` that change what a layer holds; the others may be as they like.
struct FixedTTTOptions {
  bool share_qk = false;
  bool gate = false;
  int conv_kernel = 4;  ///< read with share_qk
};

/// `FixedTTTLinear<S, head_width, heads, mini_batch, options>` and `FixedTTTMLP`, of the same
/// sizes. A large one (its weights are 4 width^2 numbers or more) belongs in static memory or on
/// the heap.
template <ttt::Scalar S, class Model, int head_width, int heads, int mini_batch,
          FixedTTTOptions options>
class FixedTTTLayer {
  static_assert(
      head_width > 0 && head_width % 2 == 0,
      "FixedTTTLinear, FixedTTTMLP<S, head_width>: the head width is not positive and even");
  static_assert(
      heads > 0 && mini_batch > 0 && options.conv_kernel > 0,
      "FixedTTTLinear, FixedTTTMLP<S, head_width, heads, mini_batch>: a size is not positive");

  static constexpr int f = head_width, D = heads * f;
  static constexpr int tail_size = options.share_qk ? options.conv_kernel - 1 : 0;
  template <class T, int n>
  using Few = std::array<T, static_cast<std::size_t>(n)>;
  using Head = FixedTTTHead<S, f, Model>;
  using Weights = typename Head::Weights;

 public:
  using Scalar = S;
  using Dynamic = TTTLayer<S, Model>;

  struct State {
    Few<typename Head::State, heads> head;
    Few<FixedVector<S, D>, tail_size> conv_tail;  // oldest first
    int position;                                 // modulo mini_batch
  };

  /// Copies the weights. `inner_rate_scale` is that of `RunOptions`. Throws `std::invalid_argument`
  /// where the layer has other sizes or switches.
  explicit FixedTTTLayer(const Dynamic& layer, double inner_rate_scale = 1) {
    check(layer.config());
    const auto& p = layer.parameters();
    const TTTConfig& config = layer.config();
    load_projections(p, config.queries_as_keys);
    if constexpr (options.share_qk) {
      load_convolution(p.conv_q_weight, p.conv_q_bias, conv_q_);
      if (config.queries_as_keys) {
        conv_k_ = conv_q_;
      } else {
        load_convolution(p.conv_k_weight, p.conv_k_bias, conv_k_);
      }
    }
    load_positions(p, config);
    load_heads(p, layer.initial_weights());
    rate_scale_ = static_cast<S>(inner_rate_scale * config.base_learning_rate / f);
    copy(p.post_norm_weight.data(), post_norm_weight_);
    copy(p.post_norm_bias.data(), post_norm_bias_);
  }

  /// A new stream: the inner weights are W_0.
  State initial_state() const {
    State state{};
    for (std::size_t h = 0; h < state.head.size(); ++h) state.head[h].anchor = W_0_[h];
    return state;
  }

  /// Where a stream is that the dynamic layer has read. Throws `std::invalid_argument` where the
  /// state has other sizes.
  static State from(const typename Dynamic::State& dynamic) {
    require(dynamic.position >= 0 && dynamic.position < mini_batch, Head::layer_name,
            ": the state's position is ", dynamic.position, ", expected 0 to ", mini_batch - 1);
    check_state("conv_tail", dynamic.conv_tail, D, tail_size);
    for (const auto* weights : {&dynamic.weights, &dynamic.carried.sums}) {
      for (std::size_t l = 0; l < Model::weight_count; ++l) {
        const WeightShape shape = Model::weight_shape(l, f);
        check_state("W", weights->W[l], shape.rows, heads * shape.cols);
        check_state("b", weights->b[l], shape.rows, heads);
      }
    }
    State state;
    for (int h = 0; h < heads; ++h) {
      load_head(dynamic.weights, h, state.head[place(h)].anchor);
      load_head(dynamic.carried.sums, h, state.head[place(h)].sums);
    }
    for (int j = 0; j < tail_size; ++j)
      copy(dynamic.conv_tail.col(j).data(), state.conv_tail[place(j)]);
    state.position = static_cast<int>(dynamic.position);
    return state;
  }

  /// The same for the dynamic layer: to read many tokens at once, to be saved.
  static typename Dynamic::State to_dynamic(const State& state) {
    typename Dynamic::State dynamic;
    dynamic.position = state.position;
    dynamic.weights = InnerWeights<S, Model>::zero(heads, f);
    dynamic.carried.sums = dynamic.weights;
    for (int h = 0; h < heads; ++h) {
      store_head(state.head[place(h)].anchor, h, dynamic.weights);
      store_head(state.head[place(h)].sums, h, dynamic.carried.sums);
    }
    dynamic.conv_tail.resize(D, tail_size);
    for (int j = 0; j < tail_size; ++j)
      dynamic.conv_tail.col(j) = view<D>(state.conv_tail[place(j)].data());
    return dynamic;
  }

  /// One token: x_t, y_t [width], which may be the same memory.
  void step(const S* x_t, State& state, S* y_t) const {
    // An array of complex numbers is one of pairs of real ones, by the rules of the language.
    FixedVector<std::complex<S>, views * D / 2> pairs;
    S* const k = reinterpret_cast<S*>(pairs.data());
    S *const q = k + D, *const v = q + D;
    projections_.multiply(x_t, options.share_qk ? q : k);
    if constexpr (options.share_qk) convolve(state, k, q);
    turn(state.position, pairs.data());
    const auto rate = rates(x_t);
    const S tau = tau_[place(state.position)];
    Numbers z;
    for (int h = 0; h < heads; ++h) {
      auto& head = state.head[place(h)];
      heads_[place(h)].step(head, k + h * f, q + h * f, v + h * f, rate[h], tau, z.data() + h * f);
      if (state.position + 1 == mini_batch) Head::finish_mini_batch(head, tau);
    }
    state.position = (state.position + 1) % mini_batch;
    Numbers n = FixedNormalized<S, D>(z, Dynamic::epsilon).x * view<D>(post_norm_weight_.data()) +
                view<D>(post_norm_bias_.data());
    if constexpr (options.gate) n *= gelu(view<D>(v + D));
    output_.multiply(n.data(), y_t);
  }

 private:
  static constexpr int views = options.gate ? 4 : 3;           // k, q, v, g
  static constexpr int first_view = options.share_qk ? 1 : 0;  // k is made of q's projection
  static constexpr int rate_lanes = (heads + lane_size<S> - 1) / lane_size<S> * lane_size<S>;
  using Numbers = Eigen::Array<S, D, 1>;
  struct Convolution {
    Few<FixedVector<S, D>, options.conv_kernel> taps;
    FixedVector<S, D> bias;
  };
  struct Nothing {};
  using OptionalConvolution = std::conditional_t<options.share_qk, Convolution, Nothing>;

  static constexpr std::size_t place(int i) { return static_cast<std::size_t>(i); }
  template <int n>
  static auto view(const S* numbers) {
    return Eigen::Map<const Eigen::Array<S, n, 1>>(numbers);
  }

  static void check(const TTTConfig& config) {
    const auto check_size = [](const char* name, Index actual, int expected) {
      require(actual == expected, Head::layer_name, ": the layer's ", name, " is ", actual,
              ", expected ", expected);
    };
    const auto check_switch = [](const char* name, bool actual, bool expected) {
      const char* const words[] = {"false", "true"};
      require(actual == expected, Head::layer_name, ": the layer's ", name, " is ", words[actual],
              ", expected ", words[expected]);
    };
    check_size("heads", config.heads, heads);
    check_size("head width", config.head_width(), f);
    check_size("mini_batch", config.mini_batch, mini_batch);
    check_switch("share_qk", config.share_qk, options.share_qk);
    check_switch("gate", config.gate, options.gate);
    if (options.share_qk) check_size("conv_kernel", config.conv_kernel, options.conv_kernel);
  }

  /// Makes a text only where it is needed: `from` allocates nothing.
  static void check_state(const char* part, const auto& tensor, Index rows, Index cols) {
    if (tensor.rows() == rows && tensor.cols() == cols) return;
    require_shape(concat(Head::layer_name, ": the state's ", part).c_str(), tensor, rows, cols);
  }

  static void copy(const S* from, auto& to) { std::copy_n(from, to.size(), to.data()); }

  void load_projections(const auto& p, bool queries_as_keys) {
    int row = 0;
    const auto append = [&](const Matrix<S>& weight) {  // [in, out]
      for (int i = 0; i < D; ++i, ++row)
        for (int j = 0; j < D; ++j) projections_(row, j) = weight(j, i);
    };
    if (!options.share_qk) append(queries_as_keys ? p.q_proj : p.k_proj);
    append(p.q_proj);
    append(p.v_proj);
    if (options.gate) append(p.g_proj);
    output_.copy_from(p.o_proj.transpose());
  }

  static void load_convolution(const Matrix<S>& weight, const Vector<S>& bias, auto& convolution) {
    for (int j = 0; j < options.conv_kernel; ++j)
      for (int i = 0; i < D; ++i) convolution.taps[place(j)][place(i)] = weight(j, i);
    copy(bias.data(), convolution.bias);
  }

  void load_positions(const auto& p, const TTTConfig& config) {
    Vector<S> tau(mini_batch);
    InnerRate<S>::token_factors(p.token_idx, tau);
    copy(tau.data(), tau_);
    const RotaryInterleaved<S> rotary(f, mini_batch, config.rope_theta);
    for (int m = 0; m < mini_batch; ++m)
      for (int i = 0; i < f / 2; ++i)
        turns_[place(m)][place(i)] = config.rotary
                                         ? std::complex<S>(rotary.cos()(i, m), rotary.sin()(i, m))
                                         : std::complex<S>(1);
  }

  void load_heads(const auto& p, const auto& W_0) {
    for (int h = 0; h < heads; ++h) {
      copy(p.norm_weight.col(h).data(), heads_[place(h)].gamma);
      copy(p.norm_bias.col(h).data(), heads_[place(h)].beta);
      copy(p.rate_weight.col(h).data(), rate_weight_[place(h)]);
      rate_bias_[place(h)] = p.rate_bias(0, h);
      load_head(W_0, h, W_0_[place(h)]);
    }
  }

  static void load_head(const auto& weights, int h, Weights& head) {
    std::size_t l = 0;
    Weights::each(
        [&](auto& W, auto& b) {
          const Index cols = weights.W[l].cols() / heads;
          W.copy_from(weights.W[l].middleCols(h * cols, cols));
          copy(weights.b[l].col(h).data(), b);
          ++l;
        },
        head);
  }

  static void store_head(const Weights& head, int h, auto& weights) {
    std::size_t l = 0;
    Weights::each(
        [&](const auto& W, const auto& b) {
          const Index cols = weights.W[l].cols() / heads;
          W.copy_to(weights.W[l].middleCols(h * cols, cols));
          std::copy_n(b.data(), b.size(), weights.b[l].col(h).data());
          ++l;
        },
        head);
  }

  /// k and q of the projection in q's place, which joins the tail.
  void convolve(State& state, S* k, S* q) const {
    const Numbers p = view<D>(q);
    const auto filter = [&](const Convolution& convolution, S* y) {
      Numbers sum = view<D>(convolution.bias.data());
      for (int j = 0; j < tail_size; ++j)
        sum +=
            view<D>(convolution.taps[place(j)].data()) * view<D>(state.conv_tail[place(j)].data());
      Eigen::Map<Numbers>{y} = sum + view<D>(convolution.taps[place(tail_size)].data()) * p;
    };
    filter(conv_k_, k);
    filter(conv_q_, q);
    for (int j = 0; j + 1 < tail_size; ++j)
      state.conv_tail[place(j)] = state.conv_tail[place(j + 1)];
    if constexpr (tail_size > 0) copy(p.data(), state.conv_tail[place(tail_size - 1)]);
  }

  /// k and q, all heads of both.
  void turn(int position, std::complex<S>* pairs) const {
    using Pairs = Eigen::Array<std::complex<S>, f / 2, 1>;
    const Eigen::Map<const Pairs> turns(turns_[place(position)].data());
    for (int h = 0; h < 2 * heads; ++h) Eigen::Map<Pairs>{pairs + h* f / 2} *= turns;
  }

  /// lr of every head: a whole register, since sigma of one costs what sigma of all does.
  Eigen::Array<S, rate_lanes, 1> rates(const S* x_t) const {
    Eigen::Array<S, rate_lanes, 1> a = Eigen::Array<S, rate_lanes, 1>::Zero();
    for (int h = 0; h < heads; ++h)
      a[h] = (view<D>(rate_weight_[place(h)].data()) * view<D>(x_t)).sum() + rate_bias_[place(h)];
    return rate_scale_ * (S(0.5) * ((S(0.5) * a).tanh() + S(1)));
  }

  static Numbers gelu(const Numbers& z) {
    const S c = static_cast<S>(GeluTanh::c), cubic = static_cast<S>(GeluTanh::cubic);
    return S(0.5) * z * (S(1) + (c * z * (S(1) + cubic * z.square())).tanh());
  }

  FixedMatrix<S, (views - first_view) * D, D> projections_;
  FixedMatrix<S, D, D> output_;
  [[no_unique_address]] OptionalConvolution conv_q_, conv_k_;
  Few<Head, heads> heads_;
  Few<Weights, heads> W_0_;
  Few<FixedVector<std::complex<S>, f / 2>, mini_batch> turns_;  // cos + i sin
  FixedVector<S, mini_batch> tau_;
  Few<FixedVector<S, D>, heads> rate_weight_;
  Few<S, heads> rate_bias_;
  S rate_scale_;
  FixedVector<S, D> post_norm_weight_, post_norm_bias_;

  static_assert(std::is_trivially_copyable_v<State>);
};

}  // namespace ttt
