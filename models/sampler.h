// Choosing the next token from logits. Order: repeat penalty, top-k, temperature, top-p, min-p, then a draw from a
// generator that is fixed by its algorithm (splitmix64, not the standard library's), so a seed gives the same text
// everywhere. A logit that is NaN counts as minus infinity.
#pragma once
#include <cstdint>
#include <vector>

#include "quant.h"

namespace quant {

constexpr int most_choices = 64;  // that a device is asked for (Graph::choice)

class Sampler {
  public:
    explicit Sampler(const quant_sampling& how);  // throws Error(ARGUMENT) naming a value out of range
    int32_t sample(const float* logits, int64_t vocabulary, const std::vector<int32_t>& history);

    // The most likely tokens that are enough to sample from, most likely first: 1, most_choices, or 0 if it takes all
    // logits. sample_chosen() draws from them what sample() would from all.
    int choices_needed(int64_t vocabulary) const;
    int32_t sample_chosen(const float* pairs, int count);  // (logit, id)

  private:
    struct Candidate {
        float weight;  // first its logit, then its probability relative to the most probable one's
        int32_t id;
    };
    static bool more_likely(const Candidate& a, const Candidate& b) {
        return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
    }
    int32_t draw(float largest);
    void penalise(const std::vector<int32_t>& history);
    void keep_top_k();
    void keep_top_p();
    double uniform();  // [0, 1)

    quant_sampling how_;
    uint64_t state_;
    std::vector<Candidate> candidates_;  // kept: no allocation per token
    std::vector<int32_t> recent_;
};

int32_t argmax(const float* logits, int64_t vocabulary);  // the lowest id among equals; NaN never wins

}  // namespace quant
