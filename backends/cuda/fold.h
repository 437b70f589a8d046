// What a plan of few rows computes inside its linears: each kernel less saves its start and a round trip of its result.
#pragma once
#include <vector>

#include "core/backend.h"

namespace quant {
namespace cuda {

struct Folded {
    bool away = false;            // another node computes this one
    const Bound* norm = nullptr;  // of a linear: the rmsnorm that makes its input
};
std::vector<Folded> fold_norms(const std::vector<Bound>& nodes, int max_rows);

constexpr int most_folded_rows = 8;

}  // namespace cuda
}  // namespace quant
