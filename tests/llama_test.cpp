// The network against a plain float64 statement of it, on every device of this machine and on the loopback device.
#include <catch2/catch.hpp>
#include <cmath>

#include "tests/llama_fixture.h"

using namespace quant;

namespace {

double largest(const std::vector<double>& x) {
    double most = 0;
    for (double v : x) most = std::max(most, std::abs(v));
    return most;
}

double largest_difference(const std::vector<float>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        if (!(std::abs(a[i] - b[i]) <= most)) most = std::abs(a[i] - b[i]);  // a NaN shows
    }
    return most;
}

std::vector<SmallLlama> shapes() {
    std::vector<SmallLlama> list(1);  // Llama
    SmallLlama s;
    s.tied = true;
    s.heads = s.kv_heads = 4;
    list.push_back(s);
    s = SmallLlama();  // Qwen2
    s.architecture = "qwen2";
    s.bias = true;
    s.tied = true;
    list.push_back(s);
    s = SmallLlama();  // Mistral's window, odd sizes
    s.window = 70;
    s.hidden = 72;
    s.ffn = 100;
    s.heads = 3;
    s.kv_heads = 1;
    s.head_dim = 24;
    s.vocabulary = 131;
    list.push_back(s);
    s = SmallLlama();
    s.rope_scaling = "llama3";
    s.bias = true;
    list.push_back(s);
    s = SmallLlama();
    s.rope_scaling = "linear";
    list.push_back(s);
    return list;
}

}  // namespace

TEST_CASE("float logits equal the float64 network's", "[llama]") {
    TestServices services;
    std::vector<std::string> devices = usable_cpu_devices();
    devices.push_back("loopback:0");
    for (const SmallLlama& shape : shapes()) {
        const auto tokens = random_tokens(150, shape.vocabulary, 7);
        const auto expected = oracle_logits(*small_checkpoint(shape), tokens);
        for (const std::string& device : devices) {
            INFO(device << " " << shape.architecture << " hidden " << shape.hidden << " window " << shape.window
                        << " rope " << shape.rope_scaling);
            auto model = load_test_model(small_checkpoint(shape), {{device, 0}}, "f32", services);
            Session session(model, 0);
            // The cache is f16: keys and values carry 2^-11 relative error, everything else is float32.
            CHECK(largest_difference(all_logits(session, tokens), expected) <= 4e-3 * largest(expected));
        }
    }
}

TEST_CASE("a split over devices gives the same logits", "[llama]") {
    TestServices services;
    const SmallLlama shape;
    const auto tokens = random_tokens(100, shape.vocabulary, 3);
    for (const char* scheme : {"f32", "a8w8", "a16w4:g32", "fp8"}) {
        auto whole = load_test_model(small_checkpoint(shape), {{"cpu:reference", 0}}, scheme, services);
        Session whole_session(whole, 0);
        const auto expected = all_logits(whole_session, tokens);
        const Devices splits[] = {{{"loopback:0", 3}},
                                  {{"cpu:reference", 1}, {"loopback:0", 2}},
                                  {{"loopback:0", 1}, {"loopback:1", 1}, {"cpu:reference", 1}}};
        for (const Devices& split : splits) {
            INFO(scheme << " over " << split.size() << " devices, the first " << split[0].first);
            auto model = load_test_model(small_checkpoint(shape), split, scheme, services);
            Session session(model, 0);
            CHECK(all_logits(session, tokens) == expected);
        }
    }
}

TEST_CASE("the contract names every linear and what runs it", "[llama]") {
    TestServices services;
    const SmallLlama shape;
    auto model = load_test_model(small_checkpoint(shape), {{"cpu:reference", 1}, {"loopback:0", 2}}, "a8w8", services);
    REQUIRE(model->contract().size() == size_t{2 + 7 * 3});  // embedding, head, seven linears a layer
    int on_loopback = 0;
    for (const ContractLine& line : model->contract()) {
        INFO(line.tensor);
        CHECK_FALSE(line.kernel.empty());
        if (line.tensor == "token_embd.weight") continue;
        CHECK(line.weights == "s8:channel:f16");
        CHECK(line.activations == "s8:token");
        CHECK_FALSE(line.exact);
        on_loopback += line.device == "loopback:0";
    }
    CHECK(on_loopback == 2 * 7 + 1);
}
