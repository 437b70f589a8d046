// What linears compute for their neighbours: each kernel less saves its start and a round trip of its result.
#pragma once
#include <vector>

#include "core/backend.h"

namespace quant {
namespace vulkan {

struct Folded {
    bool away = false;  // another node computes this one
    const Bound* producer =
        nullptr;                  // of a linear: the rmsnorm or, in plans of many rows, silu_mul that makes its input
    const Bound* silu = nullptr;  // of a linear of few rows: the silu_mul that takes both halves of its result
};
std::vector<Folded> fold(const std::vector<Bound>& nodes, int max_rows);

// The linear with the operands that it has when its neighbours are folded into it.
Bound with_folded(const Bound& linear, const Folded& folded);

}  // namespace vulkan
}  // namespace quant
