// From a graph to a replayable plan: kernels chosen, values given memory in one arena, recorded by the backend.
#pragma once
#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/graph.h"

namespace quant {

struct PlanShape {
    int max_rows, max_outputs;
    int top = 0;  // how many of each output row's most likely tokens the plan chooses (Graph::choice); 0: none
};

// Where each root value lies in the arena: values whose lifetimes overlap never share bytes.
struct MemoryPlan {
    std::vector<size_t> offsets;  // per value; views: their root's
    size_t bytes = 0;
};
MemoryPlan plan_memory(const Graph& graph, const PlanShape& shape);

// Bytes of one value, and of its codes part (where RowScale[] begins).
size_t value_bytes(const Value& value, int max_rows);

// Throws Error(UNSUPPORTED) naming the op or tensor that the backend has no kernel for.
std::vector<Bound> bind(const Graph& graph, const MemoryPlan& memory, const PlanShape& shape, const Backend& backend,
                        Buffer* arena);

}  // namespace quant
