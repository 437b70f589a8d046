// What linears and attention compute for their neighbours: each kernel less saves its start and a round trip of its
// result.
#pragma once
#include <vector>

#include "core/backend.h"

namespace quant {
namespace vulkan {

struct Folded {
    bool away = false;  // another node computes this one
    // Of a linear: the rmsnorm or, in plans of many rows, silu_mul that makes its input.
    const Bound* producer = nullptr;
    // Of a linear of few rows: the silu_mul that takes both halves of its result.
    const Bound* silu = nullptr;
    // Of attention of one row: the rope_cache_write that makes its query.
    const Bound* rope = nullptr;
};
std::vector<Folded> fold(const std::vector<Bound>& nodes, int max_rows);

// The node with the operands that it has when its neighbours are folded into it.
Bound with_folded(const Bound& node, const Folded& folded);

}  // namespace vulkan
}  // namespace quant
