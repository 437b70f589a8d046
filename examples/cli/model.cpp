#include "model.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "interrupt.h"
#include "terminal.h"

namespace cli {
namespace {

void log_all(void*, int, const char* text) {
    note(text);
}

void log_warnings(void*, int level, const char* text) {
    if (level > 0) note(text);
}

const char* or_null(const std::string& text) {
    return text.empty() ? nullptr : text.c_str();
}

quant_model_options library_options(const ModelOptions& options, Progress& progress) {
    auto opt = sized<quant_model_options>();
    opt.device = or_null(options.device);
    opt.device_layers = options.layers;
    opt.scheme = or_null(options.scheme);
    opt.head = or_null(options.head);
    opt.kv = or_null(options.kv);
    opt.exact = options.exact;
    opt.no_mmap = options.no_mmap;
    opt.progress = Progress::callback;
    opt.user = &progress;
    return opt;
}

}  // namespace

void check(quant_status status, const quant_error& error) {
    if (status == QUANT_OK) return;
    if (status == QUANT_CANCELLED) throw Interrupted();
    throw Failure(status == QUANT_ERR_ARGUMENT ? exit_usage : exit_failed,
                  error.message[0] ? error.message : quant_status_name(status));
}

Runtime create_runtime(const Options& options) {
    auto host = sized<quant_host>();
    host.threads = options.threads;
    host.log = options.verbose ? log_all : log_warnings;
    quant_error error{};
    quant_runtime* runtime = nullptr;
    QuietThreads quiet;
    check(quant_runtime_create(&runtime, &host, &error), error);
    return Runtime(runtime);
}

Model open_model(quant_runtime* runtime, const ModelOptions& options) {
    Progress progress;
    const quant_model_options opt = library_options(options, progress);
    quant_error error{};
    quant_model* model = nullptr;
    check(quant_model_open(&model, runtime, options.model.c_str(), &opt, &error), error);
    return Model(model);
}

Model open_shape(quant_runtime* runtime, const std::string& shape, const ModelOptions& options) {
    Progress progress;
    const quant_model_options opt = library_options(options, progress);
    quant_error error{};
    quant_model* model = nullptr;
    check(quant_model_open_shape(&model, runtime, shape.c_str(), &opt, &error), error);
    return Model(model);
}

Session create_session(quant_model* model, int context) {
    auto opt = sized<quant_session_options>();
    opt.context = context;
    quant_error error{};
    quant_session* session = nullptr;
    check(quant_session_create(&session, model, &opt, &error), error);
    return Session(session);
}

quant_model_info model_info(const quant_model* model) {
    auto info = sized<quant_model_info>();
    check(quant_model_get_info(model, &info), quant_error{});
    return info;
}

std::vector<quant_contract> model_contract(const quant_model* model) {
    std::vector<quant_contract> rows(quant_model_contract_count(model), sized<quant_contract>());
    for (size_t i = 0; i < rows.size(); ++i) check(quant_model_contract(model, i, &rows[i]), quant_error{});
    return rows;
}

std::vector<int32_t> tokenize_text(const quant_model* model, const std::string& text, unsigned flags) {
    std::vector<int32_t> tokens(text.size() / 2 + 16);
    quant_error error{};
    for (;;) {
        size_t needed = 0;
        check(quant_tokenize(model, text.data(), text.size(), flags, tokens.data(), tokens.size(), &needed, &error),
              error);
        const bool complete = needed <= tokens.size();
        tokens.resize(needed);
        if (complete) return tokens;
    }
}

int32_t greedy_token(const float* logits, int vocabulary) {
    int32_t best = 0;
    for (int32_t i = 1; i < vocabulary; ++i) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

std::string read_text(const std::string& path) {
    std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
    std::string text;
    char buffer[1 << 16];
    size_t n;
    errno = 0;
    while (file && (n = std::fread(buffer, 1, sizeof buffer, file)) > 0) text.append(buffer, n);
    const bool failed = !file || std::ferror(file);
    const int reason = errno;
    if (file && file != stdin) std::fclose(file);
    if (interrupted()) throw Interrupted();
    if (failed) throw Failure(exit_failed, format("cannot read %s: %s", path.c_str(), std::strerror(reason)));
    return text;
}

std::string prompt_text(const TextOptions& options, const char* subcommand) {
    if (!options.file.empty()) return read_text(options.file);
    if (options.has_prompt && options.prompt != "-") return options.prompt;
    if (!options.has_prompt && input_is_terminal()) {
        throw Failure(exit_usage, format("%s needs a text: -p TEXT, -f FILE, or standard input; see 'quant %s --help'",
                                         subcommand, subcommand));
    }
    return read_text("-");
}

}  // namespace cli
