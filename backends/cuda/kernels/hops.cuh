// Groups over several processes. A rank reaches the others by hops: over the rail to the ranks with its index on other nodes
// (a token's row goes once to each other node and is relayed there), and, where every rank has a process of its own, over
// the node to its other ranks. To its source a hop's place looks like one more destination rank, whose memory is the send
// buffer; to the ranks behind it a relay looks like the source.
#pragma once

#include "views.cuh"

namespace kernels {

__device__ __host__ __forceinline__ int ownNode(const Shape& shape) { return shape.rank / shape.ranksPerNode; }

/** Whether a destination's memory is in this process. */
__device__ __forceinline__ bool isLocal(const Shape& shape, int ranksPerProcess, int dst) {
  return dst / ranksPerProcess == shape.rank / ranksPerProcess;
}

/** The place by which a hop brings rows to `dst`; -1 = not by this hop. */
__device__ __forceinline__ int placeOf(const Hop& hop, const Shape& shape, int dst) {
  const bool inNode = dst / shape.ranksPerNode == ownNode(shape);
  if (hop.rail) return inNode ? -1 : dst / shape.ranksPerNode;
  return inNode && !isLocal(shape, hop.ranksPerProcess, dst) ? dst - hop.first : -1;
}

/** Where the items' rows are in the send buffers of the hops; null = no such hop. */
struct HopRowsOf {
  /** [items, nodes]. */
  const int32_t* rail;
  /** [items, ranks per node]. */
  const int32_t* node;
  int ranksPerProcess;
};

}  // namespace kernels
