// The subcommands of the quant command and their options. main.cpp fills the options from the command line; every
// subcommand works through quant.h alone and returns the exit status.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace cli {

constexpr int exit_done = 0, exit_failed = 1, exit_usage = 2, exit_interrupted = 130;

struct Options {  // common to all
    bool json = false;
    bool verbose = false;
    int threads = 0;
};
struct ModelOptions : Options {
    std::string model, device, scheme, head, kv;
    int layers = 0;
    bool exact = false, no_mmap = false;
};
struct TextOptions {
    std::string prompt, file;
    bool has_prompt = false;
};
struct SamplingOptions {
    float temperature = 0.8f, top_p = 0.95f, min_p = 0, repeat_penalty = 0;
    int top_k = 0, tokens = 0, context = 0;
    uint64_t seed = 0;
    bool has_seed = false;
    std::vector<std::string> stop;
};

struct InfoOptions : ModelOptions {
    bool tensors = false;
};
struct RunOptions : ModelOptions {
    TextOptions text;
    SamplingOptions sampling;
};
struct ChatOptions : ModelOptions {
    std::string system;
    SamplingOptions sampling;
};
struct QuantizeOptions : Options {
    std::string in, out, scheme, head, pack;
};
struct PerplexityOptions : ModelOptions {
    std::string file, against, against_scheme, against_kv;
    int context = 0;
    uint64_t bytes = 0, tokens = 0;  // 0 = all
};
struct BenchOptions : ModelOptions {
    std::string shape, write;
    std::vector<std::string> compare;
    int prompt = 512, tokens = 128, depth = 0, batch = 1, repeat = 3;
};
struct TokenizeOptions : ModelOptions {
    TextOptions text;
    bool special = false, plain = false;
};
struct EvalOptions : ModelOptions {
    std::vector<int32_t> tokens;
    std::string logits;
    int greedy = 0;
};

int info(const InfoOptions& options);
int devices(const Options& options);
int run(const RunOptions& options);
int chat(const ChatOptions& options);
int quantize(const QuantizeOptions& options);
int perplexity(const PerplexityOptions& options);
int bench(const BenchOptions& options);
int tokenize(const TokenizeOptions& options);
int eval(const EvalOptions& options);

}  // namespace cli
