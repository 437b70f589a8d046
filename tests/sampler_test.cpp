// Sampling: each rule against what it must keep, the draw against its probabilities, and the seed's sequence pinned.
#include "models/sampler.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <set>

#include "formats/error.h"

using namespace quant;

namespace {

const float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

quant_sampling sampling(float temperature) {
    quant_sampling s = {};
    s.struct_size = sizeof s;
    s.temperature = temperature;
    s.seed = 1;
    return s;
}

std::vector<float> log_of(const std::vector<double>& probabilities) {
    std::vector<float> logits;
    for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3));
    return logits;
}

std::vector<int> counts(const quant_sampling& how, const std::vector<float>& logits, int draws,
                        const std::vector<int32_t>& history = {}) {
    Sampler sampler(how);
    std::vector<int> n(logits.size());
    for (int i = 0; i < draws; ++i)
        ++n[static_cast<size_t>(sampler.sample(logits.data(), static_cast<int64_t>(logits.size()), history))];
    return n;
}

// The tokens that can be drawn at all.
std::set<int> kept(const quant_sampling& how, const std::vector<float>& logits,
                   const std::vector<int32_t>& history = {}) {
    std::set<int> ids;
    const std::vector<int> n = counts(how, logits, 4000, history);
    for (size_t i = 0; i < n.size(); ++i)
        if (n[i] > 0) ids.insert(static_cast<int>(i));
    return ids;
}

quant_status status_of(const quant_sampling& how) {
    try {
        Sampler sampler(how);
    } catch (const Error& e) {
        return e.status();
    }
    return QUANT_OK;
}

}  // namespace

TEST_CASE("greedy takes the largest logit, the lowest id among equals", "[sampler]") {
    const std::vector<float> logits = {1, 5, 5, kNan, -kInfinity};
    CHECK(argmax(logits.data(), 5) == 1);
    CHECK(argmax(logits.data() + 3, 2) == 1);
    CHECK(argmax(logits.data() + 3, 1) == 0);
    CHECK(Sampler(sampling(0)).sample(logits.data(), 5, {}) == 1);
    const std::vector<float> infinite = {kNan, 3, kInfinity, kInfinity};
    CHECK(argmax(infinite.data(), 4) == 2);
}

TEST_CASE("draws follow the probabilities and the temperature", "[sampler]") {
    const std::vector<double> p = {0.5, 0.25, 0.125, 0.125};
    const int draws = 40000;
    for (double temperature : {1.0, 0.5, 2.0}) {
        double total = 0;
        for (double x : p) total += std::pow(x, 1 / temperature);
        const std::vector<int> n = counts(sampling(static_cast<float>(temperature)), log_of(p), draws);
        for (size_t i = 0; i < p.size(); ++i) {
            const double expected = std::pow(p[i], 1 / temperature) / total;
            const double deviation = std::sqrt(expected * (1 - expected) / draws);
            CHECK(std::fabs(double(n[i]) / draws - expected) < 5 * deviation);
        }
    }
}

TEST_CASE("top-k, top-p and min-p keep the most likely", "[sampler]") {
    const std::vector<float> logits = log_of({0.05, 0.4, 0.2, 0.3, 0.05});
    quant_sampling s = sampling(1);
    CHECK(kept(s, logits) == std::set<int>{0, 1, 2, 3, 4});
    s.top_k = 2;
    CHECK(kept(s, logits) == std::set<int>{1, 3});
    s.top_k = 4;  // one of two equals: the lower id
    CHECK(kept(s, logits) == std::set<int>{0, 1, 2, 3});
    s.top_k = 100;
    CHECK(kept(s, logits).size() == 5);
    s = sampling(1);
    s.top_p = 0.69f;
    CHECK(kept(s, logits) == std::set<int>{1, 3});
    s.top_p = 0.75f;
    CHECK(kept(s, logits) == std::set<int>{1, 2, 3});
    s.top_p = 1e-6f;
    CHECK(kept(s, logits) == std::set<int>{1});
    s.top_p = 1;
    CHECK(kept(s, logits).size() == 5);
    s.top_k = 3;  // of 0.4 0.3 0.2, the first two are 7/9
    s.top_p = 0.75f;
    CHECK(kept(s, logits) == std::set<int>{1, 3});
    s = sampling(1);
    s.min_p = 0.45f;  // of 0.4: 0.18 and more
    CHECK(kept(s, logits) == std::set<int>{1, 2, 3});
    s.min_p = 1;
    CHECK(kept(s, logits) == std::set<int>{1});

    // More candidates than are sorted at a time: 500 equal ones, of which the first 250 make a half.
    const std::vector<float> flat(500, 1.0f);
    s = sampling(1);
    s.top_p = 0.4999f;
    CHECK(*kept(s, flat).rbegin() == 249);
}

TEST_CASE("the repeat penalty lowers each recent token once", "[sampler]") {
    const std::vector<float> logits = {4, 3, -1, -1.5f};
    quant_sampling s = sampling(0);
    s.repeat_penalty = 2;
    const auto pick = [&](const std::vector<int32_t>& history) { return Sampler(s).sample(logits.data(), 4, history); };
    CHECK(pick({}) == 0);
    CHECK(pick({0}) == 1);
    CHECK(pick({0, 0, 0, 1}) == 0);  // 2 and 1.5, not 0.5
    const std::vector<float> negative = {-1, -1.5f};
    CHECK(Sampler(s).sample(negative.data(), 2, {0}) == 1);
    CHECK(pick({-7, 1 << 30}) == 0);  // ids outside the vocabulary
    s.repeat_window = 2;
    CHECK(pick({0, 2, 3}) == 0);
    CHECK(pick({2, 0, 3}) == 1);
}

TEST_CASE("logits that are not numbers or not finite are survived", "[sampler]") {
    quant_sampling all = sampling(0.7f);
    all.top_k = 3;
    all.top_p = 0.9f;
    all.min_p = 0.01f;
    all.repeat_penalty = 1.3f;
    for (const quant_sampling& s : {sampling(1), all}) {
        CHECK(kept(s, {kNan, 1, kNan}, {0, 1}) == std::set<int>{1});
        CHECK(kept(s, {kNan, kNan}) == std::set<int>{0});
        CHECK(kept(s, {-kInfinity, -kInfinity}) == std::set<int>{0});
        CHECK(kept(s, {1, kInfinity, 2, kInfinity}) == std::set<int>{1, 3});
        CHECK(kept(s, {-kInfinity, -3e38f, 3e38f}) == std::set<int>{2});
        CHECK(kept(s, {7}) == std::set<int>{0});
    }
    quant_sampling cold = sampling(std::numeric_limits<float>::denorm_min());
    CHECK(kept(cold, {1, 1.0001f, 0}) == std::set<int>{1});
}

TEST_CASE("the seed fixes the draws", "[sampler]") {
    const std::vector<float> flat(1000, 0.0f);
    const auto sequence = [&](uint64_t seed) {
        quant_sampling s = sampling(1);
        s.seed = seed;
        Sampler sampler(s);
        std::vector<int32_t> ids;
        for (int i = 0; i < 4; ++i) ids.push_back(sampler.sample(flat.data(), 1000, {}));
        return ids;
    };
    CHECK(sequence(7) == sequence(7));
    CHECK(sequence(7) != sequence(8));
    // splitmix64's published first outputs for seed 0, as fractions of 2^64: 0xE220A8397B1DCDAF is 0.883...
    CHECK(sequence(0) == std::vector<int32_t>{883, 431, 26, 970});
}

TEST_CASE("the most likely logits are enough where the sampler says so", "[sampler]") {
    std::vector<float> logits(300);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 37 % 50) / 10 - 2;  // with ties
    logits[5] = kNan;
    logits[6] = -kInfinity;
    std::vector<int32_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return std::isnan(logits[b]) ? !std::isnan(logits[a]) : logits[a] > logits[b];
    });
    for (float temperature : {0.f, 0.7f, 1e-3f, 100.f})
        for (int top_k : {1, 40, 64}) {
            quant_sampling how = sampling(temperature);
            how.top_k = top_k;
            how.top_p = 0.9f;
            how.min_p = 0.01f;
            Sampler from_all(how), from_chosen(how);
            const int needed = from_chosen.choices_needed(300);
            REQUIRE(needed == (temperature == 0 ? 1 : most_choices));
            std::vector<float> pairs;
            for (int i = 0; i < needed; ++i) {
                pairs.push_back(logits[order[i]]);
                pairs.push_back(static_cast<float>(order[i]));
            }
            for (int i = 0; i < 200; ++i)
                REQUIRE(from_chosen.sample_chosen(pairs.data(), needed) == from_all.sample(logits.data(), 300, {}));
        }
    quant_sampling how = sampling(1);
    CHECK(Sampler(how).choices_needed(300) == 0);
    how.top_k = 65;
    CHECK(Sampler(how).choices_needed(300) == 0);
    how.top_k = 40;
    CHECK(Sampler(how).choices_needed(40) == 0);
    how.repeat_penalty = 1.1f;
    CHECK(Sampler(how).choices_needed(300) == 0);
}

TEST_CASE("options out of range are refused", "[sampler]") {
    CHECK(status_of(sampling(0)) == QUANT_OK);
    const auto with = [](auto change) {
        quant_sampling s = sampling(1);
        change(s);
        return status_of(s);
    };
    CHECK(with([](quant_sampling& s) { s.temperature = -1; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.temperature = kInfinity; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.temperature = kNan; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.top_k = -1; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.top_p = 1.5f; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.top_p = kNan; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.min_p = -0.1f; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.repeat_penalty = -2; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.repeat_penalty = kNan; }) == QUANT_ERR_ARGUMENT);
    CHECK(with([](quant_sampling& s) { s.repeat_window = -1; }) == QUANT_ERR_ARGUMENT);
}
