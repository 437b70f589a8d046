// Every allocation of load + generate fails once: the answer is QUANT_ERR_MEMORY or success, and nothing leaks.
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>

#include "checkpoints/json.h"
#include "models/save.h"
#include "tests/checkpoint_fixture.h"
#include "tests/llama_fixture.h"

namespace {

std::atomic<bool> armed{false};
std::atomic<long> countdown{0};  // the allocation that fails, counted from now
std::atomic<long> live{0};       // made while armed and not yet freed
std::atomic<long> made{0};       // since it was last set to 0

bool refuse() {
    return armed && countdown.fetch_sub(1) == 0;
}

// A header in front of each block says whether it was counted.
constexpr size_t header = 64;
void* counted_alloc(size_t bytes) {
    if (refuse()) return nullptr;
    ++made;
    char* raw = static_cast<char*>(std::malloc(bytes + header));
    if (!raw) return nullptr;
    raw[0] = armed;
    if (raw[0]) ++live;
    return raw + header;
}
void counted_free(void* p) {
    if (!p) return;
    char* raw = static_cast<char*>(p) - header;
    if (raw[0]) --live;
    std::free(raw);
}

}  // namespace

void* operator new(size_t bytes) {
    void* p = counted_alloc(bytes);
    if (!p) throw std::bad_alloc();
    return p;
}
void* operator new[](size_t bytes) {
    return operator new(bytes);
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    return counted_alloc(bytes);
}
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept {
    return counted_alloc(bytes);
}
void operator delete(void* p) noexcept {
    counted_free(p);
}
void operator delete[](void* p) noexcept {
    counted_free(p);
}
void operator delete(void* p, size_t) noexcept {
    counted_free(p);
}
void operator delete[](void* p, size_t) noexcept {
    counted_free(p);
}

using namespace quant;

namespace {

void* host_alloc(void*, size_t bytes, size_t align) {
    if (refuse()) return nullptr;
    char* raw = static_cast<char*>(std::malloc(bytes + align + header));
    if (!raw) return nullptr;
    char* p = raw + header;
    p += (align - reinterpret_cast<uintptr_t>(p) % align) % align;
    std::memcpy(p - sizeof raw, &raw, sizeof raw);
    ++live;
    return p;
}
void host_release(void*, void* p, size_t) {
    char* raw;
    std::memcpy(&raw, static_cast<char*>(p) - sizeof raw, sizeof raw);
    --live;
    std::free(raw);
}

// Load and generate, through the public interface; the first failure's status.
quant_status load_and_generate(const char* path, const std::vector<char>& gguf, const char* scheme) {
    quant_host host{};
    host.struct_size = sizeof host;
    host.alloc = host_alloc;
    host.release = host_release;
    host.threads = 2;
    quant_model_options options{};
    options.struct_size = sizeof options;
    options.scheme = scheme;
    quant_runtime* rt = nullptr;
    quant_model* model = nullptr;
    quant_session* session = nullptr;
    quant_status status = quant_runtime_create(&rt, &host, nullptr);
    if (status == QUANT_OK)
        status = path ? quant_model_open(&model, rt, path, &options, nullptr)
                      : quant_model_open_memory(&model, rt, gguf.data(), gguf.size(), &options, nullptr);
    if (status == QUANT_OK) status = quant_session_create(&session, model, nullptr, nullptr);
    if (status == QUANT_OK) {
        const char text[] = "a b c";
        int32_t ids[16];
        size_t n = 0;
        status = quant_tokenize(model, text, sizeof text - 1, 0, ids, 16, &n, nullptr);
        quant_generate_options generate{};
        generate.struct_size = sizeof generate;
        generate.max_tokens = 3;
        generate.ignore_end = 1;
        if (status == QUANT_OK) status = quant_generate(session, ids, n, &generate, nullptr, nullptr, nullptr, nullptr);
    }
    quant_session_destroy(session);
    quant_model_destroy(model);
    quant_runtime_destroy(rt);
    return status;
}

// step(i): the next allocation to fail after the i-th.
template <class Step>
long sweep(const char* path, const std::vector<char>& gguf, const char* scheme, Step step) {
    for (long i = 0;; i = step(i)) {
        live = 0;
        countdown = i;
        armed = true;
        const quant_status status = load_and_generate(path, gguf, scheme);
        armed = false;
        if (status != QUANT_OK && status != QUANT_ERR_MEMORY) FAIL("allocation " << i << " failed: status " << status);
        if (live != 0) FAIL("allocation " << i << " failed: " << live << " blocks leaked");
        if (countdown >= 0) {  // none was refused: that was all
            CHECK(status == QUANT_OK);
            return i;
        }
    }
}

void add_vocabulary(Metadata& m, int size) {
    std::vector<std::string> tokens = {"<unk>",
                                       "<s>",
                                       "</s>",
                                       "\xe2\x96\x81",
                                       "a",
                                       "b",
                                       "c",
                                       "\xe2\x96\x81"
                                       "a"};
    std::vector<int64_t> types = {2, 3, 3, 1, 1, 1, 1, 1};
    while (static_cast<int>(tokens.size()) < size) {
        tokens.push_back("w" + std::to_string(tokens.size()));
        types.push_back(1);
    }
    m.set("tokenizer.ggml.model", std::string("llama"));
    m.set("tokenizer.ggml.scores", std::vector<double>(tokens.size(), 0.0));
    m.set("tokenizer.ggml.tokens", tokens);
    m.set("tokenizer.ggml.token_type", types);
}

}  // namespace

TEST_CASE("every failed allocation is a status and leaks nothing", "[oom]") {
    SmallLlama shape;
    shape.layers = 1;
    shape.vocabulary = 40;
    auto checkpoint = small_checkpoint(shape);
    add_vocabulary(checkpoint->metadata, shape.vocabulary);
    std::vector<char> gguf;
    {
        const TemporaryDirectory directory;
        const std::string path = directory.path() + "/model.gguf";
        TestServices services;
        save_checkpoint(*checkpoint, {}, nullptr, services.pool, path, [](float) {});
        std::ifstream in(path, std::ios::binary);
        gguf.assign(std::istreambuf_iterator<char>(in), {});
    }
    REQUIRE(load_and_generate(nullptr, gguf, nullptr) == QUANT_OK);  // what the standard library keeps is made now
    for (const char* scheme : {static_cast<const char*>(nullptr), "a8w8", "a16w4:g32"}) {
        const long allocations = sweep(nullptr, gguf, scheme, [](long i) { return i + 1; });
        INFO("allocations: " << allocations);
        CHECK(allocations > 100);
    }
}

TEST_CASE("failed allocations in loading a Hugging Face directory", "[oom]") {
    const std::string path = tiny_path();
    REQUIRE(load_and_generate(path.c_str(), {}, "a8w8") == QUANT_OK);
    sweep(path.c_str(), {}, "a8w8", [](long i) { return i + 1 + i / 12; });  // about 150 of them, denser at the start
}

TEST_CASE("every failed allocation in reading JSON and in letting it go", "[oom]") {
    const std::string text =
        R"({"a": [1, [2, "longer than a string that needs no memory"], {"b": [[], {}]}], "a": {"c": [3]}})";
    long allocations = 0;
    for (bool refused = true; refused; ++allocations) {
        live = 0;
        countdown = allocations;
        armed = true;
        try {
            parse_json("text", reinterpret_cast<const uint8_t*>(text.data()), text.size());
        } catch (const std::bad_alloc&) {
        }
        armed = false;
        refused = countdown < 0;
        if (live != 0) FAIL("allocation " << allocations << " failed: " << live << " blocks leaked");
    }
    CHECK(allocations > 10);
}

TEST_CASE("decoding allocates nothing", "[oom]") {
    for (const char* scheme : {"f16", "a8w8", "a16w4:g32"}) {
        INFO(scheme);
        quant_host host{};
        host.struct_size = sizeof host;
        host.threads = 2;
        quant_model_options options{};
        options.struct_size = sizeof options;
        options.scheme = scheme;
        options.kv = "s8";
        quant_runtime* rt = nullptr;
        quant_model* model = nullptr;
        quant_session* sessions[2] = {};
        REQUIRE(quant_runtime_create(&rt, &host, nullptr) == QUANT_OK);
        REQUIRE(quant_model_open(&model, rt, tiny_path().c_str(), &options, nullptr) == QUANT_OK);
        for (quant_session*& s : sessions) REQUIRE(quant_session_create(&s, model, nullptr, nullptr) == QUANT_OK);
        const std::vector<int32_t> prompt(20, 5);
        quant_status status = QUANT_OK;
        auto together = [&] {
            quant_step steps[2] = {};
            for (int i = 0; i < 2; ++i) {
                steps[i].struct_size = sizeof steps[i];
                steps[i].session = sessions[i];
                steps[i].tokens = prompt.data();
                steps[i].n = 1;
            }
            if (status == QUANT_OK) status = quant_eval_batch(model, steps, 2, nullptr);
        };
        auto alone = [&] {
            if (status == QUANT_OK) status = quant_session_eval(sessions[0], prompt.data(), 1, nullptr, nullptr);
        };
        for (quant_session* s : sessions)
            REQUIRE(quant_session_eval(s, prompt.data(), 20, nullptr, nullptr) == QUANT_OK);
        alone();  // the first steps of a kind record their plans, and room for tokens doubles
        together();
        // Positions up to 64 are in the first page of the cache: a page more is a page table and a pool that grow.
        made = 0;
        for (int i = 0; i < 10; ++i) alone();
        const long by_one = made.exchange(0);
        for (int i = 0; i < 32; ++i) together();
        const long by_two = made;
        CHECK(status == QUANT_OK);
        CHECK(quant_session_length(sessions[0]) == 64);
        CHECK(by_one == 0);
        CHECK(by_two == 0);
        for (quant_session* s : sessions) quant_session_destroy(s);
        quant_model_destroy(model);
        quant_runtime_destroy(rt);
    }
}
