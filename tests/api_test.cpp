// The C interface: arguments, options, host services, files in and out, generation.
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#ifndef _WIN32
#include <fcntl.h>
#include <unistd.h>
#endif

#include "quant.h"

namespace {

const std::string tiny = std::string(QUANT_TEST_SOURCE_DIR) + "/models/tiny";

struct Model {
    quant_model* m = nullptr;
    ~Model() { quant_model_destroy(m); }
};
struct Session {
    quant_session* s = nullptr;
    ~Session() { quant_session_destroy(s); }
};

quant_model_options options_with(const char* scheme, const char* device = nullptr) {
    quant_model_options o{};
    o.struct_size = sizeof o;
    o.scheme = scheme;
    o.device = device;
    return o;
}

struct Generated {
    std::string text;
    std::vector<int32_t> tokens;
    quant_stop_reason reason{};
};
Generated generate(quant_model* m, const std::string& prompt, quant_generate_options options) {
    Session s;
    REQUIRE(quant_session_create(&s.s, m, nullptr, nullptr) == QUANT_OK);
    std::vector<int32_t> ids(prompt.size() + 8);
    size_t n = 0;
    REQUIRE(quant_tokenize(m, prompt.data(), prompt.size(), QUANT_ADD_SPECIAL | QUANT_PARSE_SPECIAL, ids.data(),
                           ids.size(), &n, nullptr) == QUANT_OK);
    options.struct_size = sizeof options;
    options.sampling.struct_size = sizeof options.sampling;
    Generated g;
    quant_error error{};
    const quant_status status = quant_generate(
        s.s, ids.data(), n, &options,
        [](void* user, int32_t token, const char* text, size_t len) {
            static_cast<Generated*>(user)->text.append(text, len);
            static_cast<Generated*>(user)->tokens.push_back(token);
            return 0;
        },
        &g, &g.reason, &error);
    INFO(error.message);
    REQUIRE(status == QUANT_OK);
    return g;
}

struct TemporaryFile {
    std::string path;
    explicit TemporaryFile(const char* name)
        : path((std::filesystem::temp_directory_path() / (std::to_string(std::random_device{}()) + name)).string()) {}
    ~TemporaryFile() { std::remove(path.c_str()); }
};

std::vector<char> read_all(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("wrong calls get a status and one line", "[api]") {
    quant_error error{};
    quant_model* m = reinterpret_cast<quant_model*>(&error);
    CHECK(quant_model_open(&m, nullptr, "/nonexistent/model.gguf", nullptr, &error) == QUANT_ERR_IO);
    CHECK(m == nullptr);
    CHECK(error.status == QUANT_ERR_IO);
    CHECK(std::string(error.message).find("/nonexistent/model.gguf") != std::string::npos);
    CHECK(std::string(error.message).find('\n') == std::string::npos);
    CHECK(quant_model_open(nullptr, nullptr, tiny.c_str(), nullptr, &error) == QUANT_ERR_ARGUMENT);
    CHECK(quant_model_open(&m, nullptr, nullptr, nullptr, nullptr) == QUANT_ERR_ARGUMENT);
    quant_model_options o = options_with("a17w3");
    CHECK(quant_model_open(&m, nullptr, tiny.c_str(), &o, &error) == QUANT_ERR_ARGUMENT);
    CHECK(std::string(error.message).find("a17w3") != std::string::npos);
    o = options_with(nullptr, "gpu:7");
    CHECK(quant_model_open(&m, nullptr, tiny.c_str(), &o, &error) == QUANT_ERR_ARGUMENT);
    CHECK(std::string(error.message).find("gpu:7") != std::string::npos);
    o = options_with(nullptr);
    o.struct_size = 0;
    CHECK(quant_model_open(&m, nullptr, tiny.c_str(), &o, &error) == QUANT_ERR_ARGUMENT);
    CHECK(quant_model_open_memory(&m, nullptr, "GGUF", 4, nullptr, &error) == QUANT_ERR_CORRUPT);
    CHECK(quant_model_open_shape(&m, nullptr, "llama9-1t", nullptr, &error) == QUANT_ERR_ARGUMENT);
    CHECK(quant_session_eval(nullptr, nullptr, 0, nullptr, &error) == QUANT_ERR_ARGUMENT);
    quant_model_destroy(nullptr);
    quant_session_destroy(nullptr);
    quant_runtime_destroy(nullptr);
    CHECK(quant_session_length(nullptr) == 0);
    CHECK(std::string(quant_status_name(QUANT_ERR_CACHE_FULL)) == "QUANT_ERR_CACHE_FULL");
}

TEST_CASE("a model tells its shape, contract and metadata", "[api]") {
    Model m;
    quant_model_options o = options_with("a16w8:g32");
    o.head = "a8w8";
    REQUIRE(quant_model_open(&m.m, nullptr, tiny.c_str(), &o, nullptr) == QUANT_OK);
    quant_model_info info{};
    info.struct_size = sizeof info;
    REQUIRE(quant_model_get_info(m.m, &info) == QUANT_OK);
    CHECK(std::string(info.architecture) == "llama");
    CHECK(info.parameters == 7344384);
    CHECK(info.layers == 8);
    CHECK(info.hidden == 256);
    CHECK(info.vocabulary == 4096);
    CHECK(info.context == 512);
    CHECK(info.has_chat_template == 1);
    CHECK(info.bits_per_weight > 8);
    CHECK(info.bits_per_weight < 9.1);
    REQUIRE(quant_model_contract_count(m.m) == 1 + 7 * 8 + 1);
    bool head = false;
    for (size_t i = 0; i < quant_model_contract_count(m.m); ++i) {
        quant_contract line{};
        line.struct_size = sizeof line;
        REQUIRE(quant_model_contract(m.m, i, &line) == QUANT_OK);
        if (std::string(line.tensor) == "token_embd.weight" && std::string(line.weights) == "s8:channel:f16")
            head = true;
    }
    CHECK(head);
    CHECK(quant_model_meta(m.m, "general.architecture") == std::string("llama"));
    CHECK(quant_model_meta(m.m, "no.such.key") == nullptr);
}

TEST_CASE("the same seed gives the same text, another one another", "[api]") {
    Model m;
    REQUIRE(quant_model_open(&m.m, nullptr, tiny.c_str(), nullptr, nullptr) == QUANT_OK);
    quant_generate_options o{};
    o.max_tokens = 40;
    o.sampling.temperature = 0.9f;
    o.sampling.top_k = 40;
    o.sampling.top_p = 0.95f;
    o.sampling.seed = 1;
    const Generated first = generate(m.m, "Once upon a time", o), again = generate(m.m, "Once upon a time", o);
    o.sampling.seed = 2;
    const Generated other = generate(m.m, "Once upon a time", o);
    CHECK(first.text == again.text);
    CHECK(first.text != other.text);
    CHECK_FALSE(first.text.empty());
}

TEST_CASE("stop strings cut the text before them", "[api]") {
    Model m;
    REQUIRE(quant_model_open(&m.m, nullptr, tiny.c_str(), nullptr, nullptr) == QUANT_OK);
    quant_generate_options o{};
    o.max_tokens = 64;
    const Generated whole = generate(m.m, "Once upon a time", o);
    const size_t cut = whole.text.find("very");
    REQUIRE(cut != std::string::npos);
    const char* stop[] = {"no such words", "very"};
    o.stop = stop;
    o.stop_count = 2;
    const Generated stopped = generate(m.m, "Once upon a time", o);
    CHECK(stopped.reason == QUANT_STOP_STRING);
    CHECK(stopped.text == whole.text.substr(0, cut));
}

TEST_CASE("a saved model computes what the loaded one does, from path, descriptor, memory and without mapping",
          "[api][slow]") {
    for (const char* scheme :
         {"f16", "a16w8", "a16w8:g32:sym", "a16w4:g32", "a16w4:g32:sym", "a8w8", "fp8", "fp8:block", "a8w4:fp8"}) {
        INFO(scheme);
        Model loaded;
        quant_model_options o = options_with(scheme);
        REQUIRE(quant_model_open(&loaded.m, nullptr, tiny.c_str(), &o, nullptr) == QUANT_OK);
        TemporaryFile file("quant_api_test.gguf"), again("quant_api_test_again.gguf");
        quant_error error{};
        const quant_status saved = quant_model_save(loaded.m, file.path.c_str(), nullptr, nullptr, &error);
        INFO(error.message);
        REQUIRE(saved == QUANT_OK);
        REQUIRE(quant_quantize_file(nullptr, tiny.c_str(), again.path.c_str(), scheme, nullptr, nullptr, nullptr,
                                    nullptr, &error) == QUANT_OK);
        const std::vector<char> bytes = read_all(file.path);
        CHECK(bytes == read_all(again.path));

        quant_generate_options g{};
        g.max_tokens = 24;
        const std::string expected = generate(loaded.m, "One day, a fox", g).text;
        quant_model* opened = nullptr;
        auto check = [&](quant_status status) {
            INFO(error.message);
            REQUIRE(status == QUANT_OK);
            Model owner{opened};
            CHECK(generate(opened, "One day, a fox", g).text == expected);
        };
        check(quant_model_open(&opened, nullptr, file.path.c_str(), nullptr, &error));
        check(quant_model_open_memory(&opened, nullptr, bytes.data(), bytes.size(), nullptr, &error));
        quant_model_options unmapped = options_with(nullptr);
        unmapped.no_mmap = 1;
        check(quant_model_open(&opened, nullptr, file.path.c_str(), &unmapped, &error));
#ifndef _WIN32
        const int fd = open(file.path.c_str(), O_RDONLY);
        REQUIRE(fd >= 0);
        check(quant_model_open_fd(&opened, nullptr, fd, nullptr, &error));
        close(fd);
#endif
    }
}

TEST_CASE("the host's memory and threads are used and given back", "[api]") {
    struct Counts {
        std::atomic<int64_t> live{0}, calls{0}, parallel{0};
    } counts;
    quant_host host{};
    host.struct_size = sizeof host;
    host.user = &counts;
    host.threads = 3;
    host.alloc = [](void* user, size_t bytes, size_t align) -> void* {
        static_cast<Counts*>(user)->live += static_cast<int64_t>(bytes);
        ++static_cast<Counts*>(user)->calls;
        char* raw = static_cast<char*>(std::malloc(bytes + align + sizeof(void*)));
        char* aligned = raw + sizeof(void*);
        aligned += align - reinterpret_cast<uintptr_t>(aligned) % align;
        std::memcpy(aligned - sizeof(void*), &raw, sizeof raw);
        return aligned;
    };
    host.release = [](void* user, void* ptr, size_t bytes) {
        static_cast<Counts*>(user)->live -= static_cast<int64_t>(bytes);
        char* raw;
        std::memcpy(&raw, static_cast<char*>(ptr) - sizeof(void*), sizeof raw);
        std::free(raw);
    };
    host.parallel = [](void* user, int n, void (*task)(void*, int), void* arg) {
        ++static_cast<Counts*>(user)->parallel;
        std::thread half([&] {
            for (int i = 0; i < n / 2; ++i) task(arg, i);
        });
        for (int i = n / 2; i < n; ++i) task(arg, i);
        half.join();
    };
    quant_runtime* rt = nullptr;
    REQUIRE(quant_runtime_create(&rt, &host, nullptr) == QUANT_OK);
    {
        Model plain, hosted;
        quant_model_options o = options_with("a8w8");
        REQUIRE(quant_model_open(&plain.m, nullptr, tiny.c_str(), &o, nullptr) == QUANT_OK);
        REQUIRE(quant_model_open(&hosted.m, rt, tiny.c_str(), &o, nullptr) == QUANT_OK);
        quant_runtime_destroy(rt);  // the model keeps what it needs
        quant_generate_options g{};
        g.max_tokens = 8;
        CHECK(generate(hosted.m, "Once", g).text == generate(plain.m, "Once", g).text);
    }
    CHECK(counts.calls > 0);
    CHECK(counts.parallel > 0);
    CHECK(counts.live == 0);
}

TEST_CASE("progress is reported and can cancel loading and writing", "[api]") {
    struct State {
        float last = -1;
        int calls = 0, stop_at = -1;
        bool ordered = true;
    } state;
    quant_model_options o = options_with("a16w4:g32");
    o.user = &state;
    o.progress = [](void* user, const char* stage, float done) {
        State& s = *static_cast<State*>(user);
        s.ordered = s.ordered && done >= s.last && done <= 1 && std::string(stage) == "load";
        s.last = done;
        return ++s.calls == s.stop_at ? 1 : 0;
    };
    {
        Model m;
        REQUIRE(quant_model_open(&m.m, nullptr, tiny.c_str(), &o, nullptr) == QUANT_OK);
        CHECK(state.ordered);
        CHECK(state.last == 1.0f);
    }
    const int total = state.calls;
    for (int stop = 1; stop <= total; stop += 3) {
        state = State();
        state.stop_at = stop;
        Model m;
        quant_error error{};
        CHECK(quant_model_open(&m.m, nullptr, tiny.c_str(), &o, &error) == QUANT_CANCELLED);
        CHECK(m.m == nullptr);
    }
    TemporaryFile file("quant_cancelled.gguf");
    const quant_status written = quant_quantize_file(
        nullptr, tiny.c_str(), file.path.c_str(), "a16w8", nullptr, nullptr,
        [](void*, const char*, float done) { return done > 0.5f ? 1 : 0; }, nullptr, nullptr);
    CHECK(written == QUANT_CANCELLED);
    CHECK_FALSE(std::filesystem::exists(file.path));
    CHECK_FALSE(std::filesystem::exists(file.path + ".partial"));
}

TEST_CASE("chat messages are put in the model's template", "[api]") {
    Model m;
    REQUIRE(quant_model_open(&m.m, nullptr, tiny.c_str(), nullptr, nullptr) == QUANT_OK);
    const quant_message messages[] = {{"user", "Tell me a story about a cat."}};
    char text[256];
    size_t needed = 0;
    REQUIRE(quant_chat_format(m.m, messages, 1, 1, text, sizeof text, &needed, nullptr) == QUANT_OK);
    CHECK(std::string(text, needed) == "<s><|user|>Tell me a story about a cat.<|end|><|assistant|>");
    REQUIRE(quant_chat_format(m.m, messages, 1, 1, nullptr, 0, &needed, nullptr) == QUANT_OK);
    CHECK(needed == 59);
}
