// The quant command, end to end on the embedded model: what it prints, its exit status, its keys.
#if !defined(_WIN32) && defined(QUANT_TEST_COMMAND)
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

using nlohmann::json;

namespace {

const std::string model = std::string(QUANT_TEST_SOURCE_DIR) + "/models/tiny";

struct Finished {
    int status;  // exit status, or -signal
    std::string out, err;
    double seconds_after_signal = 0;
};

std::string slurp(FILE* file) {
    std::rewind(file);
    std::string text;
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, n);
    return text;
}

// Starts the command with its output in files, its input in one, and lets `meanwhile` act on the process.
template <class F>
Finished start(const std::vector<std::string>& arguments, const std::string& input, F meanwhile) {
    FILE *in = std::tmpfile(), *out = std::tmpfile(), *err = std::tmpfile();
    std::fwrite(input.data(), 1, input.size(), in);
    std::fflush(in);
    std::rewind(in);
    std::istringstream emulator(QUANT_TEST_EMULATOR);  // when cross-compiled
    std::vector<std::string> words{std::istream_iterator<std::string>(emulator), {}};
    words.push_back(QUANT_TEST_COMMAND);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(&word[0]);
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        dup2(fileno(in), 0);
        dup2(fileno(out), 1);
        dup2(fileno(err), 2);
        execvp(argv[0], argv.data());
        _exit(99);
    }
    Finished result{};
    meanwhile(child, out);
    const auto signalled = std::chrono::steady_clock::now();
    int status = 0;
    waitpid(child, &status, 0);
    result.seconds_after_signal = std::chrono::duration<double>(std::chrono::steady_clock::now() - signalled).count();
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    result.out = slurp(out);
    result.err = slurp(err);
    for (FILE* file : {in, out, err}) std::fclose(file);
    return result;
}

Finished quant(const std::vector<std::string>& arguments, const std::string& input = "") {
    return start(arguments, input, [](pid_t, FILE*) {});
}

json quant_json(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.push_back("--json");
    const Finished f = quant(arguments, input);
    INFO(f.err);
    REQUIRE(f.status == 0);
    return json::parse(f.out);
}

json reference() {
    std::ifstream file(model + "/reference.json");
    return json::parse(file);
}

std::string joined(const json& ids) {
    std::string text;
    for (const json& id : ids) text += (text.empty() ? "" : ",") + std::to_string(id.get<int>());
    return text;
}

struct TemporaryFile {
    explicit TemporaryFile(const std::string& content = "") {
        const int fd = mkstemp(path);
        if (write(fd, content.data(), content.size()) != static_cast<ssize_t>(content.size())) path[0] = 0;
        close(fd);
    }
    ~TemporaryFile() { std::remove(path); }
    char path[32] = "/tmp/quant_cli_XXXXXX";
};

bool is_one_line(const std::string& text) {
    return !text.empty() && text.find('\n') == text.size() - 1;
}

bool has_keys(const json& object, std::initializer_list<const char*> keys) {
    return std::all_of(keys.begin(), keys.end(), [&](const char* key) {
        const bool there = object.contains(key);
        if (!there) UNSCOPED_INFO("no key " << key);
        return there;
    });
}

}  // namespace

TEST_CASE("the command says what is wrong in one line and with its status", "[cli]") {
    const std::vector<std::vector<std::string>> wrong_usage = {
        {},
        {"no-such-command"},
        {"run"},
        {"run", model, "--no-such-option"},
        {"run", model, "-p", "x", "-n", "many"},
        {"run", model, "-p", "x", "--temp", "-1"},
        {"run", model, "-p", "x", "--scheme", "a99w99"},
        {"run", model, "-p", "x", "--device", "abacus"},
        {"eval", model},
        {"eval", model, "--tokens", "1,4096"},
        {"eval", model, "--tokens", "1,-2"},
        {"bench"},
        {"bench", "--shape", "no-such-shape"},
        {"perplexity", model},
    };
    for (const auto& arguments : wrong_usage) {
        const Finished f = quant(arguments);
        CAPTURE(arguments, f.err);
        CHECK(f.status == 2);
        CHECK(is_one_line(f.err));
        CHECK(f.out.empty());
    }
    TemporaryFile not_a_model("GGUF but not really");
    const std::vector<std::vector<std::string>> failures = {
        {"info", "/nonexistent"},
        {"info", not_a_model.path},
        {"run", model, "-f", "/nonexistent"},
        {"perplexity", model, "-f", "/nonexistent"},
        {"quantize", model, "/nonexistent/out.gguf", "--scheme", "f32"},
    };
    for (const auto& arguments : failures) {
        const Finished f = quant(arguments);
        CAPTURE(arguments, f.err);
        CHECK(f.status == 1);
        CHECK(is_one_line(f.err));
        CHECK(f.out.empty());
    }
    CHECK(quant({"--help"}).status == 0);
    CHECK(quant({"run", "--help"}).status == 0);
    CHECK(quant({"--version"}).out == "quant 0.1.0\n");
}

TEST_CASE("tokenize gives the reference's ids", "[cli][slow]") {
    const json cases = reference()["tokenizer_cases"];
    for (const json& test : cases) {
        const std::string text = test["text"];
        CAPTURE(text);
        TemporaryFile file(text);
        json expected = test["ids_with_bos"];
        CHECK(quant_json({"tokenize", model, "-f", file.path, "--special"})["tokens"] == expected);
        expected.erase(0);
        CHECK(quant_json({"tokenize", model, "-f", file.path})["tokens"] == expected);
    }
    CHECK(quant({"tokenize", model, "-p", "Hello world"}).out == "377 288 4071 1020\n");
    CHECK(quant({"tokenize", model, "-p", "-"}, "Hello world").out == "377 288 4071 1020\n");
    CHECK(quant({"tokenize", model}, "Hello world").out == "377 288 4071 1020\n");
}

TEST_CASE("eval gives the reference's logits and continuations", "[cli][slow]") {
    const json prompts = reference()["prompts"];
    for (const json& prompt : prompts) {
        CAPTURE(prompt["text"].get<std::string>());
        TemporaryFile file;
        const json result = quant_json({"eval", model, "--scheme", "f32", "--tokens", joined(prompt["ids"]), "--logits",
                                        file.path, "--greedy", "64"});
        CHECK(result["greedy"] == prompt["greedy_64_ids"]);
        CHECK(result["top"][0]["id"] == prompt["top10_ids"][0]);

        std::vector<float> expected(4096), got(4096);
        std::ifstream(model + "/" + prompt["logits_file"].get<std::string>(), std::ios::binary)
            .read(reinterpret_cast<char*>(expected.data()), 4096 * 4);
        std::ifstream written(file.path, std::ios::binary);
        written.read(reinterpret_cast<char*>(got.data()), 4096 * 4);
        REQUIRE(written.gcount() == 4096 * 4);
        CHECK(written.peek() == EOF);
        float largest = 0, difference = 0;
        for (size_t i = 0; i < expected.size(); ++i) {
            largest = std::max(largest, std::fabs(expected[i]));
            difference = std::max(difference, std::fabs(expected[i] - got[i]));
        }
        CHECK(difference <= 2e-4f * largest);
    }
}

TEST_CASE("run prints the generated text and nothing else", "[cli][slow]") {
    const json prompt = reference()["prompts"][0];
    const std::vector<std::string> greedy = {"run", model, "--scheme", "f32", "-n", "64", "--temp", "0"};
    auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), greedy.begin(), greedy.end());
        return more;
    };
    const Finished f = quant(with({"-p", "Once upon a time"}));
    CHECK(f.status == 0);
    CHECK(f.out == prompt["greedy_64_text"].get<std::string>());
    CHECK(f.err.find("generated") != std::string::npos);
    CHECK(quant(with({}), "Once upon a time").out == f.out);
    CHECK(quant(with({"-p", "-"}), "Once upon a time").out == f.out);

    const json object = quant_json(with({"-p", "Once upon a time"}));
    CHECK(object["text"] == f.out);
    CHECK(object["tokens"] == prompt["greedy_64_ids"]);
    CHECK(object["stop"] == "length");

    const size_t named = f.out.find("named");
    REQUIRE(named != std::string::npos);
    CHECK(quant(with({"-p", "Once upon a time", "--stop", "no such text", "--stop", "named"})).out ==
          f.out.substr(0, named));
}

TEST_CASE("the same seed gives the same text", "[cli]") {
    auto text = [](const char* seed) {
        return quant({"run", model, "-p", "One day", "-n", "40", "--temp", "0.8", "--top-k", "40", "--seed", seed}).out;
    };
    CHECK(text("7") == text("7"));
    CHECK(text("7") != text("8"));
}

TEST_CASE("perplexity scores every token after the BOS", "[cli][slow]") {
    const json prompt = reference()["prompts"][0];
    TemporaryFile file(prompt["text"].get<std::string>());
    double nll = 0;
    for (double value : prompt["nll_of_prompt_tokens_after_bos"]) nll += value;
    const double expected = std::exp(nll / 5);
    const json whole = quant_json({"perplexity", model, "-f", file.path, "--scheme", "f32"});
    CHECK(whole["tokens"] == 5);
    CHECK(whole["perplexity"].get<double>() == Approx(expected).epsilon(1e-3));
    CHECK(quant_json({"perplexity", model, "-f", file.path, "--max-tokens", "3"})["tokens"] == 3);

    std::string text;
    for (int i = 0; i < 40; ++i) text += "The dog saw a bird, and the bird saw " + std::to_string(i) + " dogs. ";
    TemporaryFile longer(text);
    const json same = quant_json({"perplexity", model, "-f", longer.path, "--ctx", "64", "--scheme", "f32", "--against",
                                  model, "--against-scheme", "f32"});
    CHECK(same["kl_mean"].get<double>() == Approx(0).margin(1e-9));
    CHECK(same["top1_agreement"] == 1.0);
    CHECK(same["perplexity_ratio"] == 1.0);
    const json other = quant_json(
        {"perplexity", model, "-f", longer.path, "--ctx", "64", "--scheme", "a16w4:g32", "--against", model});
    CHECK(other["kl_mean"].get<double>() > 1e-4);
    CHECK(other["kl_mean"].get<double>() < 0.5);
    CHECK(other["top1_agreement"].get<double>() > 0.5);
    CHECK(other["tokens"] == same["tokens"]);
}

TEST_CASE("info and devices have the keys that others build on", "[cli]") {
    const json info = quant_json({"info", model, "--scheme", "a8w8"});
    CHECK(info["architecture"] == "llama");
    CHECK(info["parameters"] == 7344384);
    CHECK(info["bits_per_weight"].get<double>() > 8);
    REQUIRE(info["contract"].size() > 8 * 7);
    for (const json& row : info["contract"]) {
        REQUIRE(has_keys(row, {"tensor", "weights", "activations", "kernel", "device", "exact"}));
    }
    CHECK(quant({"info", model}).status == 0);

    const json devices = quant_json({"devices"});
    REQUIRE(devices.is_array());
    REQUIRE(!devices.empty());
    for (const json& device : devices) REQUIRE(has_keys(device, {"name", "description", "memory_total", "reason"}));
    CHECK(std::any_of(devices.begin(), devices.end(), [](const json& d) { return d["reason"].is_null(); }));
}

TEST_CASE("bench has the keys that others build on", "[cli][slow]") {
    const json bench = quant_json({"bench", model, "-p", "16", "-n", "4", "-r", "1", "-b", "2", "--exact"});
    CHECK(has_keys(bench, {"prefill_tokens_per_second", "decode_tokens_per_second", "decode_bytes_per_token",
                           "decode_bandwidth_fraction", "prefill_peak_fraction", "load_seconds", "first_token_seconds",
                           "peak_memory_bytes"}));
    CHECK(bench["decode_tokens_per_second"].get<double>() > 0);
    CHECK(bench["peak_memory_bytes"].get<double>() > 7e6);
    CHECK(bench["decode_bytes_per_second"].get<double>() ==
          Approx(bench["decode_bytes_per_token"].get<double>() * bench["decode_tokens_per_second"].get<double>()));
    CHECK(bench["prefill_operations_per_token"].get<double>() < bench["decode_operations_per_token"].get<double>());
    CHECK(bench["prefill_peak_fraction"].get<double>() > 0);
    CHECK(bench["prefill_peak_fraction"].get<double>() < 1);
    CHECK(bench["peak_kind"] == "f32");

    const json pair =
        quant_json({"bench", model, "-p", "16", "-n", "4", "-r", "3", "--compare", "a16w4:g32", "cpu:reference"});
    CHECK(pair["a"]["peak_kind"] == "int4");
    CHECK(pair["b"]["device"] == "cpu:reference");
    const double ratio = pair["prefill_ratio"].get<double>();
    CHECK(ratio == Approx(pair["a"]["prefill_tokens_per_second"].get<double>() /
                          pair["b"]["prefill_tokens_per_second"].get<double>()));
    CHECK(pair["prefill_ratio_least"].get<double>() <= pair["prefill_ratio_most"].get<double>());
    CHECK(ratio > 1);
    CHECK(pair["decode_ratio"].get<double>() > 1);
    CHECK(quant({"bench", model, "--compare", "a8w8"}).status == 2);
    CHECK(quant({"bench", model, "--compare", "a8w8", "no-such-scheme"}).status == 2);
}

TEST_CASE("quantize writes a file that runs as the scheme did at load", "[cli]") {
    for (const char* scheme : {"a16w8:g32:sym", "a16w4:g64", "a8w8"}) {
        CAPTURE(scheme);
        TemporaryFile file;
        const json written = quant_json({"quantize", model, file.path, "--scheme", scheme});
        CHECK(written["bytes"].get<double>() > 4e6);
        const std::vector<std::string> text = {"-p", "Once upon a time", "-n", "24", "--temp", "0"};
        std::vector<std::string> from_file = {"run", file.path}, at_load = {"run", model, "--scheme", scheme};
        from_file.insert(from_file.end(), text.begin(), text.end());
        at_load.insert(at_load.end(), text.begin(), text.end());
        const Finished a = quant(from_file), b = quant(at_load);
        CAPTURE(a.err, b.err);
        CHECK(a.status == 0);
        CHECK(a.out == b.out);
    }
}

TEST_CASE("chat answers line by line and keeps the conversation", "[cli]") {
    const json object =
        quant_json({"chat", model, "--temp", "0", "-n", "20"}, "Hello!\n\nTell me a story.\n/exit\nno\n");
    REQUIRE(object["messages"].size() == 4);
    CHECK(object["messages"][0] == json({{"role", "user"}, {"content", "Hello!"}}));
    CHECK(object["messages"][1]["role"] == "assistant");
    CHECK(!object["messages"][1]["content"].get<std::string>().empty());
    CHECK(object["messages"][2]["content"] == "Tell me a story.");
    const json anew = quant_json({"chat", model, "--temp", "0", "-n", "20"}, "Hello!\n/reset\n");
    CHECK(anew["messages"].empty());
}

TEST_CASE("Ctrl-C ends a generation with the statistics so far", "[cli]") {
    // Greedy text of this model does not end within its context often enough to rely on; repeat until caught in time.
    const Finished f = start({"run", model, "-p", "Once upon a time", "--temp", "0.9", "--seed", "3", "--device",
                              "cpu:reference", "--threads", "1"},
                             "", [](pid_t child, FILE* out) {
                                 for (int i = 0; i < 2000; ++i) {
                                     fseek(out, 0, SEEK_END);
                                     if (ftell(out) > 0) break;
                                     usleep(5000);
                                 }
                                 kill(child, SIGINT);
                             });
    CAPTURE(f.out, f.err);
    CHECK(f.status == 130);
    CHECK(!f.out.empty());
    CHECK(f.err.find("interrupted") != std::string::npos);
    CHECK(f.err.find("generated") != std::string::npos);
    CHECK(f.seconds_after_signal < 1.0);  // 0.1 on a quiet machine
}

TEST_CASE("a reader that goes away ends the command quietly", "[cli]") {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    FILE* err = std::tmpfile();
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], 1);
        dup2(fileno(err), 2);
        execl(QUANT_TEST_COMMAND, "quant", "run", model.c_str(), "-p", "Once upon a time", "--temp", "0.9",
              static_cast<char*>(nullptr));
        _exit(99);
    }
    close(ends[1]);
    char first;
    CHECK(read(ends[0], &first, 1) == 1);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(slurp(err).empty());
    std::fclose(err);
}
#endif
