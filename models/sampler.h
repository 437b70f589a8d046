// Choosing the next token from logits. Order: repeat penalty, temperature, top-k, top-p, min-p, then a draw from a
// generator that is fixed by its algorithm (not the standard library's), so a seed gives the same text everywhere.
#pragma once
#include <cstdint>
#include <vector>

#include "quant.h"

namespace quant {

class Sampler {
  public:
    explicit Sampler(const quant_sampling& how);                    // throws Error(ARGUMENT) naming a value out of range
    int32_t sample(const float* logits, int64_t vocabulary, const std::vector<int32_t>& history);

  private:
    quant_sampling how_;
    uint64_t state_;
    struct Candidate { float logit; int32_t id; };
    std::vector<Candidate> candidates_;  // kept: no allocation per token
};

int32_t argmax(const float* logits, int64_t vocabulary);  // the lowest id among equals; NaN never wins

}  // namespace quant
