// Sessions: pieces, batches, threads, forks and limits must not change what a sequence computes.
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "formats/error.h"
#include "tests/llama_fixture.h"
#include "tests/loopback.h"

using namespace quant;

namespace {

const std::vector<std::string> schemes = {"f32", "bf16", "a16w8", "a16w8:g32:sym", "a16w4:g32", "a8w8", "fp8"};

// Every scheme with the default cache, and the other kinds of cache.
struct Kinds {
    std::string scheme;
    CacheKind cache = CacheKind::f16;
};
std::vector<Kinds> all_kinds() {
    std::vector<Kinds> kinds;
    for (const std::string& scheme : schemes) kinds.push_back({scheme, CacheKind::f16});
    for (const char* scheme : {"f32", "a8w8"})
        for (CacheKind cache : {CacheKind::s8, CacheKind::e4m3}) kinds.push_back({scheme, cache});
    return kinds;
}

std::vector<float> last_logits(const Session& s) {
    return {s.logits(), s.logits() + s.model().config().vocabulary};
}

std::vector<int32_t> greedy(Session& s, const std::vector<int32_t>& prompt, int n) {
    quant_generate_options options{};
    options.max_tokens = n;
    options.ignore_end = 1;
    std::vector<int32_t> tokens;
    s.generate(
        prompt.data(), prompt.size(), options,
        [](void* user, int32_t token, const char*, size_t) {
            static_cast<std::vector<int32_t>*>(user)->push_back(token);
            return 0;
        },
        &tokens);
    return tokens;
}

quant_status status_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.status();
    }
    return QUANT_OK;
}

}  // namespace

TEST_CASE("a prompt in pieces, token by token or at once gives the same logits", "[session]") {
    TestServices services;
    const SmallLlama shape;
    const auto tokens = random_tokens(140, shape.vocabulary, 5);
    for (const Kinds& kinds : all_kinds()) {
        INFO(kinds.scheme << ", cache " << cache_kind_name(kinds.cache));
        auto model =
            load_test_model(small_checkpoint(shape), {{"cpu", 0}}, kinds.scheme, services, 0, false, kinds.cache);
        Session whole(model, 0), pieces(model, 0), single(model, 0);
        whole.eval(tokens.data(), tokens.size());
        for (size_t at = 0, n = 1; at < tokens.size(); at += n, n = n % 37 + 5) {
            n = std::min(n, tokens.size() - at);
            pieces.eval(tokens.data() + at, n);
        }
        for (int32_t t : tokens) single.eval(&t, 1);
        CHECK(last_logits(whole) == last_logits(pieces));
        CHECK(last_logits(whole) == last_logits(single));
    }
}

TEST_CASE("results do not depend on the number of threads", "[session]") {
    const SmallLlama shape;
    const auto tokens = random_tokens(90, shape.vocabulary, 6);
    for (const Kinds& kinds : all_kinds()) {
        INFO(kinds.scheme << ", cache " << cache_kind_name(kinds.cache));
        std::vector<float> expected;
        for (int threads : {1, 2, 3, 5}) {
            TestServices services(threads);
            auto model =
                load_test_model(small_checkpoint(shape), {{"cpu", 0}}, kinds.scheme, services, 0, false, kinds.cache);
            Session s(model, 0);
            const auto logits = all_logits(s, tokens);
            if (expected.empty()) expected = logits;
            CHECK(logits == expected);
        }
    }
}

TEST_CASE("a batch of 8 sessions gives each what it computes alone", "[session]") {
    TestServices services;
    const SmallLlama shape;
    for (const std::string& device : {std::string("cpu"), std::string("loopback:0")}) {
        for (const Kinds& kinds : all_kinds()) {
            INFO(device << " " << kinds.scheme << ", cache " << cache_kind_name(kinds.cache));
            auto model =
                load_test_model(small_checkpoint(shape), {{device, 0}}, kinds.scheme, services, 0, false, kinds.cache);
            std::vector<std::unique_ptr<Session>> together;
            std::vector<std::vector<int32_t>> prompts;
            for (int i = 0; i < 8; ++i) {
                together.push_back(std::make_unique<Session>(model, 0));
                prompts.push_back(random_tokens(1 + 11 * i, shape.vocabulary, 20 + i));
            }
            auto step = [&](auto&& tokens_of) {
                std::vector<Session::Advance> steps(8);
                for (int i = 0; i < 8; ++i) {
                    steps[i].session = together[i].get();
                    steps[i].tokens = tokens_of(i).data();
                    steps[i].n = tokens_of(i).size();
                }
                Session::advance(steps);
                for (const auto& s : steps) REQUIRE(s.status == QUANT_OK);
            };
            step([&](int i) -> const std::vector<int32_t>& { return prompts[i]; });
            std::vector<std::vector<int32_t>> next(8, std::vector<int32_t>(1));
            std::vector<std::vector<int32_t>> generated(8);
            for (int t = 0; t < 12; ++t) {
                for (int i = 0; i < 8; ++i) {
                    next[i][0] = argmax(together[i]->logits(), shape.vocabulary);
                    generated[i].push_back(next[i][0]);
                }
                step([&](int i) -> const std::vector<int32_t>& { return next[i]; });
            }
            for (int i = 0; i < 8; ++i) {
                Session alone(model, 0);
                CHECK(greedy(alone, prompts[i], 12) == generated[i]);
                CHECK(last_logits(alone) == last_logits(*together[i]));
            }
        }
    }
}

TEST_CASE("two threads with a session each compute what each computes alone", "[session]") {
    TestServices services;
    const SmallLlama shape;
    for (const char* scheme : {"a8w8", "a16w4:g32"}) {
        auto model = load_test_model(small_checkpoint(shape), {{"cpu", 0}}, scheme, services);
        const auto first = random_tokens(40, shape.vocabulary, 1), second = random_tokens(70, shape.vocabulary, 2);
        Session alone_first(model, 0), alone_second(model, 0);
        const auto expected_first = greedy(alone_first, first, 20), expected_second = greedy(alone_second, second, 20);
        std::vector<int32_t> got_first, got_second;
        std::thread one([&] {
            Session s(model, 0);
            got_first = greedy(s, first, 20);
        });
        std::thread two([&] {
            Session s(model, 0);
            got_second = greedy(s, second, 20);
        });
        one.join();
        two.join();
        CHECK(got_first == expected_first);
        CHECK(got_second == expected_second);
    }
}

TEST_CASE("fork, rewind and reuse leave what a fresh session has", "[session]") {
    const CacheKind cache = GENERATE(CacheKind::f16, CacheKind::s8, CacheKind::e4m3);
    INFO("cache " << cache_kind_name(cache));
    TestServices services;
    const SmallLlama shape;
    auto model = load_test_model(small_checkpoint(shape), {{"cpu", 0}}, "a8w8", services, 0, false, cache);
    const auto prefix = random_tokens(100, shape.vocabulary, 1);  // one page and a part of the next
    const auto left = random_tokens(50, shape.vocabulary, 2), right = random_tokens(50, shape.vocabulary, 3);
    auto fresh = [&](std::vector<int32_t> tokens, const std::vector<int32_t>& more) {
        tokens.insert(tokens.end(), more.begin(), more.end());
        Session s(model, 0);
        s.eval(tokens.data(), tokens.size());
        return last_logits(s);
    };
    Session trunk(model, 0);
    trunk.eval(prefix.data(), prefix.size());
    auto branch = trunk.fork(prefix.size());
    CHECK(last_logits(*branch) == last_logits(trunk));
    branch->eval(right.data(), right.size());  // writes to the page that both share
    trunk.eval(left.data(), left.size());
    CHECK(last_logits(*branch) == fresh(prefix, right));
    CHECK(last_logits(trunk) == fresh(prefix, left));

    auto early = trunk.fork(70);
    CHECK_FALSE(early->has_logits());
    early->eval(right.data(), right.size());
    CHECK(last_logits(*early) == fresh({prefix.begin(), prefix.begin() + 70}, right));

    trunk.rewind(64);
    trunk.eval(right.data(), right.size());
    CHECK(last_logits(trunk) == fresh({prefix.begin(), prefix.begin() + 64}, right));

    std::vector<int32_t> wanted(prefix.begin(), prefix.begin() + 30);
    CHECK(trunk.reuse(wanted.data(), wanted.size()) == 29);  // one is left to evaluate
    CHECK(trunk.length() == 29);
    CHECK(status_of([&] { trunk.rewind(30); }) == QUANT_ERR_ARGUMENT);
    CHECK(status_of([&] { trunk.fork(30); }) == QUANT_ERR_ARGUMENT);
    CHECK(status_of([&] { greedy(trunk, {}, 1); }) == QUANT_ERR_ARGUMENT);
}

TEST_CASE("generation draws the same tokens from what the device chose as from all logits", "[session]") {
    TestServices services;
    SmallLlama shape;
    for (const char* device : {"cpu", "loopback:0"}) {
        auto model = load_test_model(small_checkpoint(shape), {{device, 0}}, "f32", services);
        const auto prompt = random_tokens(9, shape.vocabulary, 77);
        quant_generate_options greedily{}, drawn{};
        greedily.ignore_end = drawn.ignore_end = 1;
        greedily.max_tokens = drawn.max_tokens = 12;
        drawn.sampling.temperature = 0.8f;
        drawn.sampling.top_k = 20;
        drawn.sampling.seed = 3;
        for (const quant_generate_options& first : {greedily, drawn}) {
            Session generated(model, 0), stepped(model, 0);
            std::vector<int32_t> tokens, expected;
            auto collect = [](void* user, int32_t token, const char*, size_t) {
                static_cast<std::vector<int32_t>*>(user)->push_back(token);
                return 0;
            };
            generated.generate(prompt.data(), prompt.size(), first, collect, &tokens);
            stepped.eval(prompt.data(), prompt.size());
            Sampler sampler(first.sampling);
            for (int i = 0; i < first.max_tokens; ++i) {
                expected.push_back(sampler.sample(stepped.logits(), shape.vocabulary, stepped.tokens()));
                stepped.eval(&expected.back(), 1);
            }
            CHECK(tokens == expected);
            CHECK(last_logits(generated) == last_logits(stepped));
        }
        // Stopped where only the choice is known, going on in a way that needs more.
        auto stop_at_4 = [](void* user, int32_t, const char*, size_t) {
            return ++*static_cast<int*>(user) == 4 ? 1 : 0;
        };
        auto collect = [](void* user, int32_t token, const char*, size_t) {
            static_cast<std::vector<int32_t>*>(user)->push_back(token);
            return 0;
        };
        int count = 0;
        Session generated(model, 0), fresh(model, 0);
        generated.generate(prompt.data(), prompt.size(), greedily, stop_at_4, &count);
        const std::vector<int32_t> so_far = generated.tokens();
        auto fork = generated.fork(generated.length());
        fresh.eval(so_far.data(), so_far.size());
        std::vector<int32_t> tokens, forked, expected;
        generated.generate(nullptr, 0, drawn, collect, &tokens);
        fork->generate(nullptr, 0, drawn, collect, &forked);
        fresh.generate(nullptr, 0, drawn, collect, &expected);
        CHECK(tokens == expected);
        CHECK(forked == expected);
    }
}

TEST_CASE("an exhausted cache pool fails that step alone", "[session]") {
    TestServices services;
    const SmallLlama shape;
    auto model = load_test_model(small_checkpoint(shape), {{"cpu", 0}}, "f32", services, 3 * 64);
    Session a(model, 0), b(model, 0);
    const auto tokens = random_tokens(100, shape.vocabulary, 1);
    a.eval(tokens.data(), 60);
    b.eval(tokens.data(), 60);
    std::vector<Session::Advance> steps(2);
    for (int i = 0; i < 2; ++i) {
        steps[i].session = i ? &b : &a;
        steps[i].tokens = tokens.data();
        steps[i].n = 50;  // a second page each, and there is only one left
    }
    Session::advance(steps);
    CHECK(steps[0].status == QUANT_OK);
    CHECK(steps[1].status == QUANT_ERR_CACHE_FULL);
    CHECK(a.length() == 110);
    CHECK(b.length() == 60);
    a.rewind(0);
    b.eval(tokens.data(), 50);
    Session fresh(model, 0);
    a.rewind(0);
    b.rewind(60);
    b.eval(tokens.data(), 4);
    CHECK(b.length() == 64);
}

TEST_CASE("wrong tokens and a full context are refused and change nothing", "[session]") {
    TestServices services;
    const SmallLlama shape;
    auto model = load_test_model(small_checkpoint(shape), {{"cpu", 0}}, "f32", services);
    Session s(model, 20);
    const auto tokens = random_tokens(30, shape.vocabulary, 1);
    const int32_t wrong[] = {3, -1}, outside[] = {shape.vocabulary};
    CHECK(status_of([&] { s.eval(wrong, 2); }) == QUANT_ERR_ARGUMENT);
    CHECK(status_of([&] { s.eval(outside, 1); }) == QUANT_ERR_ARGUMENT);
    CHECK(status_of([&] { s.eval(tokens.data(), 0); }) == QUANT_ERR_ARGUMENT);
    CHECK(status_of([&] { s.eval(tokens.data(), 21); }) == QUANT_ERR_CONTEXT_FULL);
    CHECK(s.length() == 0);
    s.eval(tokens.data(), 15);
    quant_generate_options options{};
    options.ignore_end = 1;
    CHECK(s.generate(tokens.data(), 1, options, nullptr, nullptr) == QUANT_STOP_CONTEXT);
    CHECK(s.length() == 20);
}

TEST_CASE("cancelling stops the running call and leaves the session usable", "[session]") {
    TestServices services;
    SmallLlama shape;
    shape.context = 1 << 16;
    auto model = load_test_model(small_checkpoint(shape), {{"cpu:reference", 0}}, "f32", services);
    Session s(model, 0);
    const auto tokens = random_tokens(3000, shape.vocabulary, 1);
    s.cancel();
    CHECK(status_of([&] { s.eval(tokens.data(), 10); }) == QUANT_CANCELLED);
    s.eval(tokens.data(), 10);
    const auto before = last_logits(s);
    std::thread other([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        s.cancel();
    });
    CHECK(status_of([&] { s.eval(tokens.data(), tokens.size()); }) == QUANT_CANCELLED);
    other.join();
    CHECK(s.length() == 10);
    s.rewind(9);
    s.eval(tokens.data() + 9, 1);
    CHECK(last_logits(s) == before);
}

TEST_CASE("a device's failure is a status and the session goes on", "[session]") {
    TestServices services;
    const SmallLlama shape;
    auto model = load_test_model(small_checkpoint(shape), {{"loopback:0", 0}}, "f32", services);
    Session s(model, 0);
    const auto tokens = random_tokens(10, shape.vocabulary, 1);
    s.eval(tokens.data(), 5);
    loopback_fail_next(*model->executor().stages()[0].backend, "the device caught fire");
    CHECK(status_of([&] { s.eval(tokens.data() + 5, 5); }) == QUANT_ERR_DEVICE);
    CHECK(s.length() == 5);
    s.eval(tokens.data() + 5, 5);
    Session fresh(model, 0);
    fresh.eval(tokens.data(), 10);
    CHECK(last_logits(s) == last_logits(fresh));
}
