// What a plan computes inside its linears: each kernel less saves its start and a round trip of its result.
#pragma once
#include <vector>

#include "backends/cuda/recorder.h"

namespace quant {
namespace cuda {

struct Folded {
    bool away = false;                // another node computes this one
    const Bound* producer = nullptr;  // of a linear: the rmsnorm, silu_mul or rounding that makes its input
    const Bound* consumer = nullptr;  // of a linear: the silu_mul of its result's two halves
};
std::vector<Folded> fold(const std::vector<Bound>& nodes, const DeviceTraits& traits, int max_rows);

}  // namespace cuda
}  // namespace quant
