#include "models/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "formats/error.h"

namespace quant {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

void check(bool right, const char* what) {
    if (!right) fail(QUANT_ERR_ARGUMENT, what);
}

}  // namespace

Sampler::Sampler(const quant_sampling& how) : how_(how), state_(how.seed) {
    check(std::isfinite(how.temperature) && how.temperature >= 0, "sampling: temperature must be 0 (greedy) or more");
    check(how.top_k >= 0, "sampling: top_k must be 0 (off) or more");
    check(how.top_p >= 0 && how.top_p <= 1, "sampling: top_p must be in [0, 1]; 0 and 1 turn it off");
    check(how.min_p >= 0 && how.min_p <= 1, "sampling: min_p must be in [0, 1]; 0 turns it off");
    check(std::isfinite(how.repeat_penalty) && how.repeat_penalty >= 0,
          "sampling: repeat_penalty must be 0 or more; 0 and 1 turn it off");
    check(how.repeat_window >= 0, "sampling: repeat_window must be 0 (64) or more");
    if (how_.repeat_penalty == 0) how_.repeat_penalty = 1;
    if (how_.repeat_window == 0) how_.repeat_window = 64;
}

int32_t Sampler::sample(const float* logits, int64_t vocabulary, const std::vector<int32_t>& history) {
    if (how_.temperature == 0 && how_.repeat_penalty == 1) return argmax(logits, vocabulary);
    candidates_.resize(static_cast<size_t>(vocabulary));
    for (size_t i = 0; i < candidates_.size(); ++i)
        candidates_[i] = {std::isnan(logits[i]) ? kMinusInfinity : logits[i], static_cast<int32_t>(i)};
    if (how_.repeat_penalty != 1) penalise(history);

    // Among equals min_element takes the first, so the lowest id.
    auto best = std::min_element(candidates_.begin(), candidates_.end(),
                                 [](const Candidate& a, const Candidate& b) { return a.weight > b.weight; });
    if (best == candidates_.end() || best->weight == kMinusInfinity) return 0;
    if (how_.temperature == 0) return best->id;
    const float largest = best->weight;
    keep_top_k();
    return draw(largest);
}

int Sampler::choices_needed(int64_t vocabulary) const {
    if (how_.repeat_penalty != 1) return 0;
    if (how_.temperature == 0) return 1;
    return how_.top_k > 0 && how_.top_k <= most_choices && how_.top_k < vocabulary ? most_choices : 0;
}

int32_t Sampler::sample_chosen(const float* pairs, int count) {
    const int32_t first = static_cast<int32_t>(pairs[1]);
    if (how_.temperature == 0) return first;
    candidates_.clear();
    for (int i = 0; i < std::min(count, how_.top_k); ++i)
        candidates_.push_back(
            {std::isnan(pairs[2 * i]) ? kMinusInfinity : pairs[2 * i], static_cast<int32_t>(pairs[2 * i + 1])});
    const float largest = candidates_[0].weight;
    return largest == kMinusInfinity ? 0 : draw(largest);
}

// From candidates that still have their logits.
int32_t Sampler::draw(float largest) {
    // weight = exp((logit - largest) / temperature); the largest itself has 1, also when it is infinite.
    for (Candidate& c : candidates_)
        c.weight = c.weight == largest ? 1.0f : std::exp((c.weight - largest) / how_.temperature);
    keep_top_p();
    if (how_.min_p > 0) {
        float least = how_.min_p;
        candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                         [least](const Candidate& c) { return c.weight < least; }),
                          candidates_.end());
    }

    double total = 0;
    for (const Candidate& c : candidates_) total += c.weight;
    double drawn = uniform() * total;
    int32_t last = candidates_[0].id;
    for (const Candidate& c : candidates_) {
        if (c.weight > 0) last = c.id;
        drawn -= c.weight;
        if (drawn < 0) break;
    }
    return last;
}

// A token among the last ones gets a positive logit divided, a negative one multiplied, once however often it occurs.
void Sampler::penalise(const std::vector<int32_t>& history) {
    size_t n = std::min(history.size(), static_cast<size_t>(how_.repeat_window));
    recent_.assign(history.end() - static_cast<std::ptrdiff_t>(n), history.end());
    std::sort(recent_.begin(), recent_.end());
    recent_.erase(std::unique(recent_.begin(), recent_.end()), recent_.end());
    for (int32_t id : recent_) {
        if (id < 0 || static_cast<size_t>(id) >= candidates_.size()) continue;
        float& logit = candidates_[static_cast<size_t>(id)].weight;
        logit = logit > 0 ? logit / how_.repeat_penalty : logit * how_.repeat_penalty;
    }
}

void Sampler::keep_top_k() {
    size_t k = static_cast<size_t>(how_.top_k);
    if (k == 0 || k >= candidates_.size()) return;
    auto end = candidates_.begin() + how_.top_k;
    std::nth_element(candidates_.begin(), end, candidates_.end(), more_likely);
    candidates_.erase(end, candidates_.end());
    std::sort(candidates_.begin(), candidates_.end(), more_likely);  // nth_element's order is each library's own
}

// The fewest candidates, most likely first, whose probabilities sum to top_p or more.
void Sampler::keep_top_p() {
    if (how_.top_p <= 0 || how_.top_p >= 1) return;
    double wanted = 0;
    for (const Candidate& c : candidates_) wanted += c.weight;
    wanted *= how_.top_p;
    double sum = 0;
    size_t kept = 0;
    for (size_t sorted = 0; sum < wanted && kept < candidates_.size(); ++kept) {
        if (kept == sorted) {  // a few are usually enough: sort twice as many each time
            sorted = std::min(candidates_.size(), std::max<size_t>(64, sorted * 2));
            std::partial_sort(candidates_.begin() + static_cast<std::ptrdiff_t>(kept),
                              candidates_.begin() + static_cast<std::ptrdiff_t>(sorted), candidates_.end(),
                              more_likely);
        }
        sum += candidates_[kept].weight;
    }
    candidates_.resize(std::max<size_t>(kept, 1));
}

double Sampler::uniform() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return static_cast<double>(z >> 11) / 9007199254740992.0;  // 2^53
}

int32_t argmax(const float* logits, int64_t vocabulary) {
    int64_t best = -1;
    for (int64_t i = 0; i < vocabulary; ++i)
        if (!std::isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
    return static_cast<int32_t>(std::max<int64_t>(best, 0));
}

}  // namespace quant
