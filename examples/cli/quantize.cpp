// quant quantize: checkpoint in, GGUF file out.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model.h"
#include "terminal.h"

namespace cli {

int quantize(const QuantizeOptions& options) {
    const Runtime runtime = create_runtime(options);
    {
        Progress progress;
        quant_error error{};
        const auto given = [](const std::string& text) { return text.empty() ? nullptr : text.c_str(); };
        check(quant_quantize_file(runtime.get(), options.in.c_str(), options.out.c_str(), given(options.scheme),
                                  given(options.head), given(options.pack), Progress::callback, &progress, &error),
              error);
    }
    const double seconds = process_seconds();
    const uint64_t bytes = std::filesystem::file_size(options.out);
    if (options.json) {
        print_json({{"output", options.out},
                    {"scheme", options.scheme.empty() ? "as stored" : options.scheme},
                    {"bytes", bytes},
                    {"seconds", seconds}});
    } else {
        print(
            format("%s: %s in %.1f s\n", options.out.c_str(), bytes_text(static_cast<double>(bytes)).c_str(), seconds));
    }
    return exit_done;
}

}  // namespace cli
