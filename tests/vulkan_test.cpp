// Whole models on the Vulkan device that QUANT_DEVICE names (`make test-vulkan`), against cpu:reference; and devices
// with smaller limits than the one that is there.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "core/scheme.h"
#include "tests/llama_fixture.h"

#ifdef QUANT_VULKAN
#include "backends/vulkan/cooperative_matrix.h"
#include "backends/vulkan/vulkan_backend.h"
#include "checkpoints/checkpoint.h"
#include "formats/error.h"

using namespace quant;

namespace {

// The device under test, or empty (said out loud).
std::string vulkan_device() {
    const char* named = std::getenv("QUANT_DEVICE");
    const std::string name = named ? named : "";
    if (name.rfind("vulkan:", 0) == 0) return name;
    WARN("skipped: QUANT_DEVICE names no Vulkan device (make test-vulkan does)");
    return "";
}

std::shared_ptr<Model> load_on(std::unique_ptr<Checkpoint> checkpoint, std::unique_ptr<Backend> backend,
                               const std::string& scheme, TestServices& services) {
    std::vector<StageDevice> stages;
    stages.push_back({std::move(backend), 0});
    WeightChoice choice;
    Scheme s;
    REQUIRE(scheme_parse(scheme, &s));
    choice.scheme = s;
    return std::make_shared<Model>(std::move(checkpoint), std::move(stages), services.pool, choice, CacheChoice{},
                                   [](float) {});
}

size_t top(const float* logits, size_t n) {
    return static_cast<size_t>(std::max_element(logits, logits + n) - logits);
}

double negative_log(const float* logits, size_t n, size_t token) {
    double largest = *std::max_element(logits, logits + n), sum = 0;
    for (size_t i = 0; i < n; ++i) sum += std::exp(logits[i] - largest);
    return std::log(sum) + largest - logits[token];
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(static_cast<double>(a[i]) - b[i]));
    return worst;
}

// The largest gap between the reference's best logit (about 15) and its logit of our best. With float activations only
// sums are rounded in another order; with quantized ones the last bit of a norm moves codes by a whole step, and the
// processor's own kernels differ from the reference as much (root mean square 0.06 for a8w8, 0.16 for fp8).
double gap_tolerance(const std::string& scheme) {
    return scheme == "a8w8" ? 0.5 : scheme == "fp8" ? 1 : 0.02;
}

}  // namespace

TEST_CASE("Vulkan, forced along the reference's tokens: the same top token, the same perplexity", "[vulkan]") {
    const std::string device = vulkan_device();
    if (device.empty()) return;
    TestServices services;
    for (const char* scheme : {"f16", "bf16", "a16w8", "a16w8:g32:sym", "a16w4:g128", "a16w4:g32", "a8w8", "fp8"}) {
        auto reference = load_test_model(open_checkpoint(tiny_path(), true), {{"cpu:reference", 0}}, scheme, services);
        auto model = load_test_model(open_checkpoint(tiny_path(), true), {{device, 0}}, scheme, services);
        Session reference_session(reference, 0), session(model, 0);
        const size_t vocabulary = static_cast<size_t>(model->config().vocabulary);
        std::vector<int32_t> tokens = {1, 547, 592, 512, 261, 459};  // Once upon a time
        reference_session.eval(tokens.data(), tokens.size());
        session.eval(tokens.data(), tokens.size());
        int same = 0;
        double worst_gap = 0, worst_difference = 0, sum = 0, squares = 0;  // of differences of log-likelihoods
        constexpr int steps = 64;
        for (int i = 0; i < steps; ++i) {
            const float *expected = reference_session.logits(), *logits = session.logits();
            const size_t token = top(expected, vocabulary), ours = top(logits, vocabulary);
            same += token == ours;
            worst_gap = std::max<double>(worst_gap, expected[token] - expected[ours]);
            for (size_t t = 0; t < vocabulary; ++t)
                worst_difference = std::max<double>(worst_difference, std::fabs(logits[t] - expected[t]));
            const double moved = negative_log(logits, vocabulary, token) - negative_log(expected, vocabulary, token);
            sum += moved;
            squares += moved * moved;
            const int32_t id = static_cast<int32_t>(token);
            reference_session.eval(&id, 1);
            session.eval(&id, 1);
        }
        const double ratio = std::exp(sum / steps), noise = std::sqrt(squares) / steps;
        WARN(device << " " << scheme << ": same top token " << same << " of " << steps << ", largest gap " << worst_gap
                    << ", largest difference " << worst_difference << ", perplexity ratio " << ratio);
        CHECK(worst_gap <= gap_tolerance(scheme));
        // Codes that moved are noise, which a text this short does not average away.
        const bool quantized = Scheme(model->choice().scheme.value()).activation != Activation::f32;
        CHECK(std::fabs(ratio - 1) <= 1e-3 + (quantized ? 4 * noise : 0));
    }
}

TEST_CASE("Vulkan: prompts longer than a tile, several sessions in a step, splits with the processor", "[vulkan]") {
    const std::string device = vulkan_device();
    if (device.empty()) return;
    TestServices services;
    SmallLlama shape;
    const auto tokens = random_tokens(150, shape.vocabulary, 7);
    const std::pair<const char*, CacheKind> cases[] = {
        {"f32", CacheKind::f16}, {"a8w8", CacheKind::s8}, {"a16w4:g32", CacheKind::e4m3}};
    for (const auto& [scheme, kind] : cases) {
        auto load = [&, scheme = scheme, kind = kind](const Devices& devices) {
            return load_test_model(small_checkpoint(shape), devices, scheme, services, 0, false, kind);
        };
        auto whole = load({{"cpu:reference", 0}});
        Session whole_session(whole, 0);
        const auto expected = all_logits(whole_session, tokens);
        const double tolerance = kind == CacheKind::f16 ? 0.02 : 0.5;  // a code of the cache may move, too
        const Devices splits[] = {
            {{device, 0}}, {{device, 2}, {"cpu:reference", 0}}, {{"cpu:reference", 1}, {device, 0}}};
        for (const Devices& split : splits) {
            INFO(scheme << " over " << split.size() << " devices, the first " << split[0].first);
            auto model = load(split);
            Session session(model, 0);
            CHECK(largest_difference(all_logits(session, tokens), expected) <= tolerance);

            // The same tokens in two sessions, one ahead of the other, in common steps.
            Session first(model, 0), second(model, 0);
            first.eval(tokens.data(), 70);
            std::vector<Session::Advance> steps(2);
            steps[0] = {&first, tokens.data() + 70, 1, false, QUANT_OK, ""};
            steps[1] = {&second, tokens.data(), 100, false, QUANT_OK, ""};
            Session::advance(steps);
            REQUIRE(steps[0].status == QUANT_OK);
            REQUIRE(steps[1].status == QUANT_OK);
            const size_t n = static_cast<size_t>(shape.vocabulary);
            auto row = [&](size_t position) {
                return std::vector<float>(expected.begin() + static_cast<int64_t>(position * n),
                                          expected.begin() + static_cast<int64_t>((position + 1) * n));
            };
            CHECK(largest_difference({first.logits(), first.logits() + n}, row(70)) <= tolerance);
            CHECK(largest_difference({second.logits(), second.logits() + n}, row(99)) <= tolerance);
            auto forked = first.fork(40);  // copies a page on write
            forked->eval(tokens.data() + 40, 3);
            CHECK(largest_difference({forked->logits(), forked->logits() + n}, row(42)) <= tolerance);
            // One row at a time: within a page, and in the second page.
            for (size_t i = 43; i < 46; ++i) {
                forked->eval(tokens.data() + i, 1);
                CHECK(largest_difference({forked->logits(), forked->logits() + n}, row(i)) <= tolerance);
            }
            for (size_t i = 71; i < 74; ++i) {
                first.eval(tokens.data() + i, 1);
                CHECK(largest_difference({first.logits(), first.logits() + n}, row(i)) <= tolerance);
            }
        }
    }
}

TEST_CASE("Vulkan: tensors larger than one allocation are cut, memory that is too small is refused", "[vulkan]") {
    const std::string device = vulkan_device();
    if (device.empty()) return;
    TestServices services;
    SmallLlama shape;
    shape.vocabulary = 30000;  // table and head: 7.3 MiB each in f32, 9 MiB are one allocation at most
    shape.hidden = 128;
    shape.layers = 1;
    const auto tokens = random_tokens(20, shape.vocabulary, 7);
    vulkan::Limits small;
    small.allocation_bytes = size_t{9} << 20;
    for (const char* scheme : {"f32", "a16w8:g32:sym"}) {
        auto whole = load_test_model(small_checkpoint(shape), {{device, 0}}, scheme, services);
        auto cut = load_on(small_checkpoint(shape), create_vulkan_backend(device, small), scheme, services);
        Session whole_session(whole, 0), cut_session(cut, 0);
        CHECK(all_logits(cut_session, tokens) == all_logits(whole_session, tokens));
    }
    vulkan::Limits tiny;
    tiny.memory_bytes = size_t{8} << 20;
    try {
        load_on(small_checkpoint(shape), create_vulkan_backend(device, tiny), "f32", services);
        FAIL("15 MiB of tables were loaded into 8 MiB");
    } catch (const Error& e) {
        CHECK(e.status() == QUANT_ERR_MEMORY);
        CHECK(std::string(e.what()).find("--layers") != std::string::npos);
    }
}

#if defined(__linux__)
TEST_CASE("Vulkan: devices that are opened, used and closed give back their descriptors and mappings", "[vulkan]") {
    const std::string device = vulkan_device();
    if (device.empty()) return;
    TestServices services;
    // The validation layer keeps its log open, a temporary file here, once for every instance that there was.
    const std::string temporary = std::filesystem::temp_directory_path().string() + "/";
    auto entries = [&](const char* folder) {
        const std::filesystem::directory_iterator all(folder);
        return std::count_if(begin(all), end(all), [&](const std::filesystem::directory_entry& entry) {
            std::error_code none;  // the iterator's own descriptor may be closed
            return std::filesystem::read_symlink(entry.path(), none).string().rfind(temporary, 0) != 0;
        });
    };
    auto mappings = [] {
        std::ifstream file("/proc/self/maps");
        return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
    };
    auto use = [&] {
        const auto backend = create_backend(device.c_str(), services.device());
        const std::vector<uint8_t> sent(5000, 7);
        std::vector<uint8_t> received(sent.size());
        Buffer* buffer = backend->alloc(sent.size(), Usage::activations);
        backend->write(buffer, 0, sent.data(), sent.size());
        backend->read(buffer, 0, received.data(), received.size());
        backend->release(buffer);
        return received == sent;
    };
    for (int i = 0; i < 4; ++i) REQUIRE(use());  // what drivers keep for good
    const auto descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task"), maps = mappings();
    constexpr int times = 32;
    for (int i = 0; i < times; ++i) REQUIRE(use());
    CHECK(entries("/proc/self/fd") < descriptors + times / 2);
    CHECK(entries("/proc/self/task") < threads + times / 2);
    CHECK(mappings() < maps + times / 2);
}
#endif

TEST_CASE("Vulkan: a listed device opens through the driver that listed it, also after the list is gone", "[vulkan]") {
    const std::string device = vulkan_device();
    if (device.empty()) return;
    TestServices services;
    std::vector<std::unique_ptr<Backend>> opened;
    std::weak_ptr<void> driver;
    for (const DeviceInfo& info : list_devices()) {
        if (info.name != device) continue;
        driver = info.driver;
        for (int i = 0; i < 2; ++i) opened.push_back(create_backend(info, services.device()));
    }
    REQUIRE(opened.size() == 2);
    for (auto& backend : opened) {
        CHECK_FALSE(driver.expired());
        CHECK(backend->name() == device);
        backend.reset();
    }
    CHECK(driver.expired());
}

TEST_CASE("Vulkan: a device that the loader lists twice appears once", "[vulkan]") {
    std::vector<vulkan::PhysicalDevice> devices(4);
    devices[0].uuid[3] = devices[2].uuid[3] = 7;
    devices[1].uuid[3] = 8;
    devices[3].uuid[0] = 1;
    devices[0].description = "first";
    vulkan::name_devices(devices);
    REQUIRE(devices.size() == 3);
    CHECK(devices[0].description == "first");
    CHECK(devices[0].name == "vulkan:0");
    CHECK(devices[1].uuid[3] == 8);
    CHECK(devices[2].name == "vulkan:2");
}

// The opcodes of a module, first words of strings left out: see the SPIR-V specification, 2.3.
static std::map<uint32_t, std::vector<std::vector<uint32_t>>> instructions(const std::vector<uint32_t>& words) {
    std::map<uint32_t, std::vector<std::vector<uint32_t>>> found;
    size_t at = 5;
    while (at < words.size()) {
        const uint32_t length = words[at] >> 16;
        REQUIRE(length > 0);
        REQUIRE(at + length <= words.size());
        found[words[at] & 0xffff].push_back({words.begin() + at + 1, words.begin() + at + length});
        at += length;
    }
    return found;
}

TEST_CASE("Vulkan: shaders of the NV extension for matrices become ones of the KHR extension", "[vulkan]") {
    using vulkan::Shader;
    for (Shader shader :
         {Shader::matmul_cooperative, Shader::matmul_cooperative_integer, Shader::attention_cooperative}) {
        const vulkan::SpirV code = vulkan::spirv(shader);
        INFO(code.name);
        const auto before = instructions({code.words, code.words + code.bytes / 4});
        const auto words = vulkan::with_khr_matrices(code.words, code.bytes / 4);
        auto after = instructions(words);
        for (uint32_t nv : {5358u, 5359u, 5360u, 5361u, 5362u}) CHECK(after.count(nv) == 0);
        for (const auto& capability : after[17]) CHECK(capability[0] != 5357);
        CHECK(after[4457].size() == before.at(5359).size());
        CHECK(after[4458].size() == before.at(5360).size());
        CHECK(after[4459].size() == before.at(5361).size());
        // Left factors, right factors and sums are three types: uses 0, 1 and 2, by constants of those values.
        std::map<uint32_t, uint32_t> constants;
        for (const auto& c : after[43])
            if (c.size() == 3) constants[c[1]] = c[2];
        std::vector<uint32_t> uses;
        for (const auto& type : after[4456]) uses.push_back(constants.at(type[5]));
        std::sort(uses.begin(), uses.end());
        CHECK(uses == std::vector<uint32_t>{0, 1, 2});
        for (const auto& load : after[4457]) CHECK(constants.at(load[3]) <= 1);
        const auto bound = words[3];
        for (const auto& c : after[43]) CHECK(c[1] < bound);
    }
    const vulkan::SpirV plain = vulkan::spirv(Shader::matmul);
    CHECK(vulkan::with_khr_matrices(plain.words, plain.bytes / 4) ==
          std::vector<uint32_t>(plain.words, plain.words + plain.bytes / 4));
}

#endif
