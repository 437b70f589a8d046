// Standard output that notices a closed pipe, one-line notes and a progress bar on standard error.
#pragma once
#include <chrono>
#include <exception>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace cli {

struct OutputClosed : std::exception {};  // the reader of standard output went away

void prepare_terminal();
double process_seconds();  // since the first call, at the start of main
bool output_is_terminal();
bool input_is_terminal();

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
std::string
format(const char* pattern, ...);

bool write_output(const char* text, size_t size) noexcept;  // flushed; false: it failed, now or before
void print(const std::string& text);                        // throws OutputClosed, or Failure (a full disk)
void print_json(const nlohmann::ordered_json& object);
void finish_output();

void note(const std::string& line);  // "quant: line" on standard error
std::string bytes_text(double bytes);

// A bar on standard error if that is a terminal, removed at the end; as a quant_progress_fn it also says whether
// Ctrl-C was pressed.
class Progress {
  public:
    ~Progress();
    void show(const char* stage, double done);
    static int callback(void* self, const char* stage, float done);

  private:
    std::chrono::steady_clock::time_point drawn_{};
    size_t width_ = 0;
};

}  // namespace cli
