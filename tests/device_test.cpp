// Devices that are not processors, end to end on the embedded model: forced along the tokens that cpu:reference
// chooses.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "tests/llama_fixture.h"

using namespace quant;

namespace {

// The one that QUANT_DEVICE names, which then must run here; none if it names a processor or nothing.
std::vector<std::string> devices_under_test() {
    const char* named = std::getenv("QUANT_DEVICE");
    std::vector<std::string> names;
    for (const DeviceInfo& d : list_devices()) {
        if (d.name.rfind("cpu:", 0) == 0 || !named || d.name != named) continue;
        if (!d.reason.empty()) FAIL(d.name << " is not usable here: " << d.reason);
        names.push_back(d.name);
    }
    if (names.empty()) WARN("SKIPPED: QUANT_DEVICE names no device but a processor (make test-cuda does)");
    return names;
}

int top(const float* logits, int n) {
    return static_cast<int>(std::max_element(logits, logits + n) - logits);
}

// The reference's own continuation: tokens, and the logits after each of them.
struct Path {
    std::vector<int32_t> tokens;
    std::vector<float> logits;
};
constexpr int prompt_tokens = 9, path_tokens = 256;

Path reference_path(const std::string& scheme, TestServices& services) {
    auto model = load_test_model(open_checkpoint(tiny_path(), true), {{"cpu:reference", 0}}, scheme, services);
    const int vocabulary = model->config().vocabulary;
    Path path;
    path.tokens = random_tokens(prompt_tokens, vocabulary, 5);
    Session session(model, 0);
    path.logits = all_logits(session, path.tokens);
    while (static_cast<int>(path.tokens.size()) < path_tokens) {
        const int32_t next = top(path.logits.data() + path.logits.size() - vocabulary, vocabulary);
        path.tokens.push_back(next);
        session.eval(&next, 1);
        path.logits.insert(path.logits.end(), session.logits(), session.logits() + vocabulary);
    }
    return path;
}

// How far a device may be from the reference where they disagree about the top token: the reference's logits of both
// differ by less than this. Activations rounded to f16 move logits by about 1e-3; where they are rounded to 8 bits, a
// value on the edge between two codes may fall to the other side, and layers after it see that.
double allowed_gap(const std::string& scheme) {
    return scheme.rfind("a8", 0) == 0 || scheme.rfind("fp8", 0) == 0 ? 0.25 : 0.02;
}

struct Comparison {
    int different = 0;
    double gap = 0, error = 0;
};
Comparison compare(const Path& path, const std::vector<float>& logits, int vocabulary) {
    Comparison c;
    REQUIRE(logits.size() == path.logits.size());
    for (size_t at = 0; at < logits.size(); at += vocabulary) {
        const float* expected = path.logits.data() + at;
        const int best = top(expected, vocabulary), ours = top(logits.data() + at, vocabulary);
        c.different += best != ours;
        c.gap = std::max<double>(c.gap, expected[best] - expected[ours]);
        for (int i = 0; i < vocabulary; ++i) {
            const double e = std::fabs(logits[at + i] - expected[i]);
            if (!(e <= c.error)) c.error = e;
        }
    }
    return c;
}

}  // namespace

TEST_CASE("devices forced along the reference's tokens", "[device]") {
    const auto devices = devices_under_test();
    if (devices.empty()) return;
    TestServices services(4);
    for (const char* scheme : {"f16", "bf16", "a16w8", "a16w8:g128", "a16w4", "a16w4:g128", "a16w4:g32", "a8w8", "fp8",
                               "fp8:block", "a8w4:fp8"}) {
        const Path path = reference_path(scheme, services);
        for (const std::string& device : devices) {
            INFO(device << " " << scheme);
            auto model = load_test_model(open_checkpoint(tiny_path(), true), {{device, 0}}, scheme, services);
            const int vocabulary = model->config().vocabulary;
            Session at_once(model, 0), one_by_one(model, 0);
            const Comparison prefill = compare(path, all_logits(at_once, path.tokens), vocabulary);
            std::vector<float> logits;
            for (const int32_t token : path.tokens) {
                one_by_one.eval(&token, 1);
                logits.insert(logits.end(), one_by_one.logits(), one_by_one.logits() + vocabulary);
            }
            const Comparison decode = compare(path, logits, vocabulary);
            WARN(device << " " << scheme << ": prefill " << prefill.different << " of " << path.tokens.size()
                        << " other top tokens, gap " << prefill.gap << ", largest difference " << prefill.error
                        << "; decode " << decode.different << ", " << decode.gap << ", " << decode.error);
            CHECK(prefill.gap <= allowed_gap(scheme));
            CHECK(decode.gap <= allowed_gap(scheme));
            CHECK(std::isfinite(prefill.error));
            CHECK(std::isfinite(decode.error));
        }
    }
}

TEST_CASE("layers split between a device and the processor", "[device]") {
    const auto devices = devices_under_test();
    if (devices.empty()) return;
    TestServices services(4);
    const Path path = reference_path("f16", services);
    for (const std::string& device : devices)
        for (const Devices& split :
             {Devices{{"cpu:reference", 2}, {device, 0}}, Devices{{device, 2}, {"cpu:reference", 0}}}) {
            INFO(split[0].first << " then " << split[1].first);
            auto model = load_test_model(open_checkpoint(tiny_path(), true), split, "f16", services);
            Session session(model, 0);
            const Comparison c = compare(path, all_logits(session, path.tokens), model->config().vocabulary);
            CHECK(c.gap <= allowed_gap("f16"));
            CHECK(std::isfinite(c.error));
        }
}

TEST_CASE("batches of prefill and decode give each sequence its own result", "[device]") {
    const auto devices = devices_under_test();
    if (devices.empty()) return;
    TestServices services(4);
    const Path path = reference_path("f16", services);
    for (const std::string& device : devices) {
        auto model = load_test_model(open_checkpoint(tiny_path(), true), {{device, 0}}, "f16", services);
        const int vocabulary = model->config().vocabulary;
        std::vector<std::unique_ptr<Session>> sessions;
        std::vector<size_t> lengths = {1, 5, 40, 64, 65, 100, 130, 200};
        std::vector<Session::Advance> steps;
        for (size_t length : lengths) {  // together: prompts of many lengths, then one token each
            sessions.push_back(std::make_unique<Session>(model, 0));
            Session::Advance advance{};
            advance.session = sessions.back().get();
            advance.tokens = path.tokens.data();
            advance.n = length;
            steps.push_back(advance);
        }
        Session::advance(steps);
        for (size_t i = 0; i < lengths.size(); ++i) {
            steps[i].tokens = path.tokens.data() + lengths[i];
            steps[i].n = 1;
        }
        Session::advance(steps);
        for (size_t i = 0; i < lengths.size(); ++i) {
            INFO(device << ", sequence of " << lengths[i]);
            REQUIRE(steps[i].status == QUANT_OK);
            const float* expected = path.logits.data() + lengths[i] * vocabulary;
            const int ours = top(sessions[i]->logits(), vocabulary);
            CHECK(expected[top(expected, vocabulary)] - expected[ours] <= allowed_gap("f16"));
        }
    }
}

TEST_CASE("one sequence, token after token, on networks of many shapes", "[device]") {
    const auto devices = devices_under_test();
    if (devices.empty()) return;
    TestServices services(4);
    struct Case {
        const char* name;
        SmallLlama shape;
        CacheKind cache;
        std::vector<const char*> schemes;
    };
    std::vector<Case> cases;
    const auto add = [&](const char* name, CacheKind cache, std::vector<const char*> schemes, auto change) {
        SmallLlama shape;
        shape.hidden = 128, shape.head_dim = 64, shape.heads = 2, shape.kv_heads = 2, shape.ffn = 320;
        change(shape);
        cases.push_back({name, shape, cache, std::move(schemes)});
    };
    const auto nothing = [](SmallLlama&) {};
    add("heads of 64", CacheKind::f16, {"f16", "bf16", "a16w4:g32", "a16w8:g64", "a8w8", "fp8"}, nothing);
    add("cache of s8", CacheKind::s8, {"f16"}, nothing);
    add("cache of e4m3", CacheKind::e4m3, {"f16"}, nothing);
    add("a window", CacheKind::f16, {"f16"}, [](SmallLlama& s) { s.window = 50; });
    add("biases, shared key heads, tied", CacheKind::f16, {"f16", "a16w4:g32"},
        [](SmallLlama& s) { s.architecture = "qwen2", s.heads = 7, s.kv_heads = 1, s.bias = s.tied = true; });
    add("heads of 128", CacheKind::f16, {"f16", "a16w8"},
        [](SmallLlama& s) { s.hidden = 256, s.head_dim = 128, s.heads = 6, s.kv_heads = 2; });
    add("heads of 128, cache of s8", CacheKind::s8, {"a16w4:g128"},
        [](SmallLlama& s) { s.hidden = 256, s.head_dim = 128, s.heads = 3, s.kv_heads = 3; });
    add("heads of 16", CacheKind::f16, {"f16"}, [](SmallLlama& s) { s.head_dim = 16, s.heads = 8; });
    add("a long row", CacheKind::f16, {"f16", "a8w8"}, [](SmallLlama& s) { s.ffn = 15360, s.layers = 1; });
    constexpr int tokens = 300;  // attention in several parts
    for (const Case& c : cases)
        for (const char* scheme : c.schemes) {
            const std::vector<int32_t> path = random_tokens(tokens, c.shape.vocabulary, 3);
            auto reference =
                load_test_model(small_checkpoint(c.shape), {{"cpu:reference", 0}}, scheme, services, 0, false, c.cache);
            Session at_once(reference, 0);
            const Path expected = {path, all_logits(at_once, path)};
            for (const std::string& device : devices) {
                INFO(device << ", " << c.name << ", " << scheme);
                auto model =
                    load_test_model(small_checkpoint(c.shape), {{device, 0}}, scheme, services, 0, false, c.cache);
                const int vocabulary = c.shape.vocabulary;
                Session session(model, 0), other(model, 0);
                std::vector<float> logits;
                const auto advance = [&](Session& s, int32_t token) {
                    s.eval(&token, 1);
                    logits.insert(logits.end(), s.logits(), s.logits() + vocabulary);
                };
                for (const int32_t token : path) advance(session, token);
                const Comparison all = compare(expected, logits, vocabulary);
                WARN(device << ", " << c.name << ", " << scheme << ": " << all.different << " other top tokens, gap "
                            << all.gap << ", largest difference " << all.error);
                // bf16 and caches of codes round more, the latter on the edge between two codes to either side.
                const bool rounds = c.cache != CacheKind::f16 || std::strcmp(scheme, "bf16") == 0;
                CHECK(all.gap <= std::max(allowed_gap(scheme), rounds ? 0.1 : 0));
                CHECK(all.error <= (allowed_gap(scheme) > 0.1 ? 1.5 : rounds ? 0.5 : 0.2));

                // Again from the middle, in turn with another session: the same bits.
                const std::vector<float> first = logits;
                const int middle = tokens / 3;
                logits.clear();
                session.rewind(middle);
                std::vector<float> others;
                for (int i = middle; i < middle + 40; ++i) {
                    advance(session, path[i]);
                    other.eval(&path[i - middle], 1);
                    others.insert(others.end(), other.logits(), other.logits() + vocabulary);
                }
                CHECK(std::memcmp(logits.data(), first.data() + middle * vocabulary, logits.size() * 4) == 0);
                CHECK(std::memcmp(others.data(), first.data(), others.size() * 4) == 0);
            }
        }
}
