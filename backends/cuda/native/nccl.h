// NCCL found and loaded when a group first needs it. docs/clusters.md has the places.
#pragma once

#include <string>
#include <vector>

#include "ncclAbi.h"

namespace fa2a {

struct NcclSearch {
  /** Null: not found. */
  const nccl::Api* api = nullptr;
  int version = 0;
  std::string path;
  /** Every place that was looked at and what came of it, in order. */
  std::vector<std::string> tried;
};

/** Looks once per process while it finds nothing; afterwards always the same. */
const NcclSearch& findNccl();
/** The library; Unavailable with every place tried when there is none. */
const nccl::Api& requireNccl();
std::string ncclVersionText(int version);

}  // namespace fa2a
