// Small models for the end-to-end tests: the embedded one, and random ones of any shape made in memory.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "models/session.h"

namespace quant {

// What a runtime would own.
struct TestServices {
    explicit TestServices(int threads = 2) : host(make_host(threads)), memory(host), pool(host) {}
    static quant_host make_host(int threads) {
        quant_host h{};
        h.struct_size = sizeof h;
        h.threads = threads;
        return h;
    }
    DeviceServices device(bool exact = false) { return {&pool, &memory, exact}; }
    quant_host host;
    HostMemory memory;
    ThreadPool pool;
};

std::string tiny_path();

struct SmallLlama {
    std::string architecture = "llama";
    int hidden = 64, layers = 3, heads = 4, kv_heads = 2, head_dim = 16, ffn = 96, vocabulary = 200, context = 512;
    int window = 0;
    bool tied = false, bias = false;
    std::string rope_scaling;  // "", "linear" or "llama3"
};
// f32 weights drawn from a seeded generator.
std::unique_ptr<Checkpoint> small_checkpoint(const SmallLlama& shape, unsigned seed = 1);

using Devices = std::vector<std::pair<std::string, int>>;  // name ("cpu:...", "loopback:N") and layers
std::shared_ptr<Model> load_test_model(std::unique_ptr<Checkpoint> checkpoint, const Devices& devices,
                                       const std::string& scheme, TestServices& services, size_t cache_positions = 0,
                                       bool exact = false, CacheKind kind = CacheKind::f16);
// All usable cpu:* devices of this machine.
std::vector<std::string> usable_cpu_devices();

// Logits of every token, [n][vocabulary].
std::vector<float> all_logits(Session& session, const std::vector<int32_t>& tokens);
std::vector<int32_t> random_tokens(int n, int vocabulary, unsigned seed);
// The network written down plainly in float64, without a cache: logits of every token.
std::vector<double> oracle_logits(const Checkpoint& checkpoint, const std::vector<int32_t>& tokens);

}  // namespace quant
