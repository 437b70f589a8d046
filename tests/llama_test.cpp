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

TEST_CASE("float logits equal the float64 network's", "[llama][textbook]") {
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
            // s8 moves them by up to 1/254 of the head's largest, e4m3 by 1/16 of their own size.
            const std::pair<CacheKind, double> bounds[] = {{CacheKind::s8, 0.06}, {CacheKind::e4m3, 0.2}};
            for (const auto& [kind, bound] : bounds) {
                auto smaller = load_test_model(small_checkpoint(shape), {{device, 0}}, "f32", services, 0, false, kind);
                Session other(smaller, 0);
                const double difference = largest_difference(all_logits(other, tokens), expected) / largest(expected);
                INFO(cache_kind_name(kind) << " " << difference);
                CHECK(difference <= bound);
            }
        }
    }
}

TEST_CASE("what a smaller cache costs the embedded model", "[llama][slow]") {
    TestServices services;
    const char text[] =
        "Once upon a time there was a little fox who lived at the edge of a wide green wood. Every morning she ran to "
        "the river to drink, and every morning an old heron stood there on one leg and said nothing at all. One day "
        "the fox asked him why he never spoke. The heron looked at the water for a long time. Then he said that he was "
        "listening, because the river told a different story every day, and it would be rude to talk over it.";
    struct Bound {
        CacheKind kind;
        double kl, perplexity;  // most nats per token from the f16 cache; most relative change of the perplexity
        int64_t bytes;          // per value, with its share of the scale, times head_dim
    };
    for (const char* device : {"cpu", "cpu:reference"}) {
        auto load = [&](CacheKind kind) {
            return load_test_model(open_checkpoint(tiny_path(), true), {{device, 0}}, "f32", services, 0, false, kind);
        };
        auto model = load(CacheKind::f16);
        const std::vector<int32_t> tokens = model->required_tokenizer().encode(text, true, false);
        const int64_t vocabulary = model->config().vocabulary, dim = model->config().head_dim;
        REQUIRE(tokens.size() > 80);
        auto log_probabilities = [&](const std::shared_ptr<Model>& m) {
            Session session(m, 0);
            const std::vector<float> logits = all_logits(session, tokens);
            std::vector<double> result(logits.begin(), logits.end());
            for (size_t row = 0; row < tokens.size(); ++row) {
                double sum = 0;
                double* p = &result[row * vocabulary];
                for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(p[i]);
                for (int64_t i = 0; i < vocabulary; ++i) p[i] -= std::log(sum);
            }
            return result;
        };
        auto perplexity = [&](const std::vector<double>& p) {
            double nll = 0;
            for (size_t i = 0; i + 1 < tokens.size(); ++i) nll -= p[i * vocabulary + tokens[i + 1]];
            return std::exp(nll / static_cast<double>(tokens.size() - 1));
        };
        const std::vector<double> expected = log_probabilities(model);
        for (const Bound& bound :
             {Bound{CacheKind::s8, 5e-4, 0.005, dim + 2}, Bound{CacheKind::e4m3, 5e-3, 0.02, dim + 2}}) {
            auto smaller = load(bound.kind);
            const std::vector<double> p = log_probabilities(smaller);
            double kl = 0;
            for (size_t i = 0; i < p.size(); ++i) kl += std::exp(expected[i]) * (expected[i] - p[i]);
            kl /= static_cast<double>(tokens.size());
            const double change = perplexity(p) / perplexity(expected) - 1;
            INFO(device << ", cache " << cache_kind_name(bound.kind) << ": KL " << kl << ", perplexity " << change);
            CHECK(kl > 0);
            CHECK(kl <= bound.kl);
            CHECK(std::abs(change) <= bound.perplexity);
            CHECK(static_cast<int64_t>(smaller->executor().cache_bytes_per_position()) ==
                  2 * model->config().layers * model->config().kv_heads * bound.bytes);
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
