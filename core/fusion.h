// The one fusion table, the same for every backend: a rule applies where the backend has a kernel for the fused op.
#pragma once
#include <functional>

#include "core/backend.h"
#include "core/graph.h"

namespace quant {

// One weight with the rows of all `parts`, one after the other, or null to leave them apart. Called for linears that
// share their input, format and activation kind and whose row counts fill whole tiles of the device's layout.
using MergeWeights = std::function<const Weight*(const std::vector<const Weight*>& parts)>;

void fuse(Graph& graph, const Backend& backend, const MergeWeights& merge);

}  // namespace quant
