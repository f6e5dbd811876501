/// @file
/// Copies of transposed matrices.
#pragma once

#include "ttt/core/lanes.hpp"

namespace ttt::detail {

/// Writes A' with contiguous columns to `out`, by square blocks of packets where they fit: as many
/// columns of A at a time as a processor can follow.
template <class S>
void transpose(MatrixIn<S> A, S* out) {
  namespace eigen = Eigen::internal;
  constexpr int packet_size = lane_size<S>;
  using Packet = typename Lanes<S, packet_size>::Packet;
  const Index rows = A.rows() / packet_size * packet_size;
  const Index cols = A.cols() / packet_size * packet_size;
  for (Index j = 0; j < cols; j += packet_size) {
    for (Index i = 0; i < rows; i += packet_size) {
      eigen::PacketBlock<Packet, packet_size> block;
      for (int p = 0; p < packet_size; ++p)
        block.packet[p] = eigen::ploadu<Packet>(A.data() + i + (j + p) * A.outerStride());
      eigen::ptranspose(block);
      for (int p = 0; p < packet_size; ++p)
        eigen::pstoreu(out + (i + p) * A.cols() + j, block.packet[p]);
    }
  }
  for (Index j = 0; j < A.cols(); ++j)
    for (Index i = j < cols ? rows : 0; i < A.rows(); ++i) out[i * A.cols() + j] = A(i, j);
}

}  // namespace ttt::detail
