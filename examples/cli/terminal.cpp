#include "terminal.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "interrupt.h"
#include "model.h"
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#else
#include <unistd.h>
#endif

namespace cli {
namespace {

bool is_terminal(FILE* stream) {
#ifdef _WIN32
    return _isatty(_fileno(stream)) != 0;
#else
    return isatty(fileno(stream)) != 0;
#endif
}

int output_error = 0;  // errno of the first failed write

[[noreturn]] void output_failed() {
    if (output_error == EPIPE) throw OutputClosed();
    throw Failure(1, format("cannot write to standard output: %s", std::strerror(output_error)));
}

}  // namespace

void prepare_terminal() {
#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
}

double process_seconds() {
    static const auto start = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool output_is_terminal() {
    return is_terminal(stdout);
}

bool input_is_terminal() {
    return is_terminal(stdin);
}

std::string format(const char* pattern, ...) {
    va_list arguments, again;
    va_start(arguments, pattern);
    va_copy(again, arguments);
    const int size = std::vsnprintf(nullptr, 0, pattern, arguments);
    std::vector<char> text(static_cast<size_t>(size < 0 ? 0 : size) + 1);
    std::vsnprintf(text.data(), text.size(), pattern, again);
    va_end(again);
    va_end(arguments);
    return std::string(text.data());
}

bool write_output(const char* text, size_t size) noexcept {
    if (output_error != 0) return false;
    errno = 0;
    if (std::fwrite(text, 1, size, stdout) == size && std::fflush(stdout) == 0) return true;
    output_error = errno != 0 ? errno : EIO;
    return false;
}

void print(const std::string& text) {
    if (!write_output(text.data(), text.size())) output_failed();
}

void print_json(const nlohmann::ordered_json& object) {
    print(object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void finish_output() {
    if (output_error != 0) output_failed();
}

void note(const std::string& line) {
    std::fprintf(stderr, "quant: %s\n", line.c_str());
}

std::string bytes_text(double bytes) {
    if (bytes >= 1e9) return format("%.2f GB", bytes / 1e9);
    if (bytes >= 1e6) return format("%.1f MB", bytes / 1e6);
    return format("%.0f bytes", bytes);
}

Progress::~Progress() {
    if (width_ > 0) std::fprintf(stderr, "\r%*s\r", static_cast<int>(width_), "");
}

void Progress::show(const char* stage, double done) {
    static const bool terminal = is_terminal(stderr);
    const auto now = std::chrono::steady_clock::now();
    if (!terminal || now - drawn_ < std::chrono::milliseconds(50)) return;
    drawn_ = now;
    constexpr int length = 40;
    const int full = static_cast<int>(std::max(0.0, std::min(done, 1.0)) * length);
    const std::string line = format("%s [%s%s] %3.0f%%", stage, std::string(full, '#').c_str(),
                                    std::string(length - full, ' ').c_str(), 100 * done);
    std::fprintf(stderr, "\r%s", line.c_str());
    width_ = std::max(width_, line.size());
}

int Progress::callback(void* self, const char* stage, float done) {
    static_cast<Progress*>(self)->show(stage, done);
    return interrupted() ? 1 : 0;
}

}  // namespace cli
