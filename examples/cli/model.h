// quant.h's objects as C++ values, and failures as exceptions.
#pragma once
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cli.h"
#include "quant.h"

namespace cli {

struct Failure : std::exception {
    Failure(int exit_status, std::string message) : exit_status(exit_status), message(std::move(message)) {}
    const char* what() const noexcept override { return message.c_str(); }
    int exit_status;
    std::string message;
};
struct Interrupted : std::exception {};

// Throws Interrupted or Failure unless the status is QUANT_OK.
void check(quant_status status, const quant_error& error);

struct Destroy {
    void operator()(quant_runtime* runtime) const { quant_runtime_destroy(runtime); }
    void operator()(quant_model* model) const { quant_model_destroy(model); }
    void operator()(quant_session* session) const { quant_session_destroy(session); }
};
using Runtime = std::unique_ptr<quant_runtime, Destroy>;
using Model = std::unique_ptr<quant_model, Destroy>;
using Session = std::unique_ptr<quant_session, Destroy>;

template <class T>
T sized() {  // an option or result struct, zero but for its size
    T value{};
    value.struct_size = sizeof(T);
    return value;
}

Runtime create_runtime(const Options& options);
Model open_model(quant_runtime* runtime, const ModelOptions& options);  // with a progress bar
Model open_shape(quant_runtime* runtime, const std::string& shape, const ModelOptions& options);
Session create_session(quant_model* model, int context);
quant_model_info model_info(const quant_model* model);
std::vector<quant_contract> model_contract(const quant_model* model);

std::vector<int32_t> tokenize_text(const quant_model* model, const std::string& text, unsigned flags);
int32_t greedy_token(const float* logits, int vocabulary);

std::string read_text(const std::string& path);                               // "-" = standard input
std::string prompt_text(const TextOptions& options, const char* subcommand);  // or standard input

}  // namespace cli
