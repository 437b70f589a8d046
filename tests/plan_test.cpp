// Fusion, the memory plan and the cache pool.
#include <catch2/catch.hpp>

#include "core/cache.h"
#include "core/fusion.h"
#include "core/plan.h"
#include "formats/error.h"
#include "tests/llama_fixture.h"

using namespace quant;

TEST_CASE("values that live at the same time never share memory", "[plan]") {
    TestServices services;
    SmallLlama shape;
    for (const char* scheme : {"f32", "a8w8"}) {
        auto model = load_test_model(small_checkpoint(shape), {{"cpu", 0}}, scheme, services);
        const Graph& g = model->executor().stages()[0].graph;
        const PlanShape sizes{64, 8};
        const MemoryPlan plan = plan_memory(g, sizes);
        auto alive = [&](int value, int node) {  // between its first and last use
            int first = -1, last = -1;
            for (int i = 0; i < static_cast<int>(g.nodes.size()); ++i) {
                bool used = g.nodes[i].out >= 0 && g.root(g.nodes[i].out) == value;
                for (int in : g.nodes[i].in) used = used || (in >= 0 && g.root(in) == value);
                if (used && first < 0) first = i;
                if (used) last = i;
            }
            if (value == g.root(g.output)) last = static_cast<int>(g.nodes.size());
            return first >= 0 && first <= node && node <= last;
        };
        for (int node = 0; node < static_cast<int>(g.nodes.size()); ++node)
            for (int a = 0; a < static_cast<int>(g.values.size()); ++a)
                for (int b = 0; b < a; ++b) {
                    if (g.root(a) != a || g.root(b) != b || !alive(a, node) || !alive(b, node)) continue;
                    const size_t a_bytes = value_bytes(g.values[a], g.values[a].rows == Rows::step ? 64 : 8);
                    const size_t b_bytes = value_bytes(g.values[b], g.values[b].rows == Rows::step ? 64 : 8);
                    const bool apart =
                        plan.offsets[a] + a_bytes <= plan.offsets[b] || plan.offsets[b] + b_bytes <= plan.offsets[a];
                    if (!apart) FAIL("values " << a << " and " << b << " overlap at node " << node);
                }
    }
}

TEST_CASE("fusion applies every rule where the device has the kernel", "[plan]") {
    TestServices services;
    const SmallLlama shape;
    auto count = [](const Graph& g, Op op) {
        int n = 0;
        for (const Node& node : g.nodes) n += node.op == op;
        return n;
    };
    auto fused = load_test_model(small_checkpoint(shape), {{"cpu", 0}}, "a8w8", services);
    const Graph& g = fused->executor().stages()[0].graph;
    CHECK(count(g, Op::rmsnorm_quantize) == 2 * shape.layers + 1);
    CHECK(count(g, Op::silu_mul_quantize) == shape.layers);
    CHECK(count(g, Op::linear_add) == 2 * shape.layers);
    CHECK(count(g, Op::linear) == 2 * shape.layers + 1);  // q/k/v, gate/up, the head
    CHECK(count(g, Op::rope_cache_write) == shape.layers);
    CHECK(count(g, Op::quantize) == shape.layers);  // of the attention's output

    auto plain = load_test_model(small_checkpoint(shape), {{"cpu:reference", 0}}, "a8w8", services);
    const Graph& r = plain->executor().stages()[0].graph;
    CHECK(count(r, Op::linear) == 7 * shape.layers + 1);
    CHECK(count(r, Op::quantize) == 4 * shape.layers + 1);  // q, k and v share one, gate and up too
}

TEST_CASE("the cache pool shares, copies on write and gives back", "[cache]") {
    TestServices services;
    auto backend = create_backend("cpu:reference", services.device());
    CacheStorage storage;
    storage.shape = {2, 1, 8};
    CachePool pool({{backend.get(), storage}}, 4 * 64);
    Sequence a, b;
    pool.reserve(a, 100);
    a.length = 100;
    CHECK(a.pages.size() == 2);
    pool.share(a, 100, b);
    CHECK(b.pages == a.pages);
    pool.reserve(b, 101);
    CHECK(b.pages[0] == a.pages[0]);
    CHECK(b.pages[1] != a.pages[1]);  // the partly filled page became its own
    pool.reserve(a, 120);
    Sequence c;
    pool.reserve(c, 64);
    const Sequence before = a;
    CHECK_THROWS_AS(pool.reserve(a, 200), Error);  // four pages are all in use
    CHECK(a.pages == before.pages);
    pool.truncate(c, 0);
    pool.reserve(a, 190);
    CHECK(a.pages.size() == 3);
    pool.truncate(a, 0);
    pool.truncate(b, 0);
    Sequence all;
    pool.reserve(all, 4 * 64);
    CHECK(all.pages.size() == 4);
    pool.truncate(all, 0);
}
