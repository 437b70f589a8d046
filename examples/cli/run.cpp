// quant run: continues a text.
#include <nlohmann/json.hpp>

#include "generation.h"
#include "interrupt.h"
#include "terminal.h"

namespace cli {

int run(const RunOptions& options) {
    const std::string text = prompt_text(options.text, "run");
    const Runtime runtime = create_runtime(options);
    const Model model = open_model(runtime.get(), options);
    const double load_seconds = process_seconds();
    const auto prompt = tokenize_text(model.get(), text, QUANT_ADD_SPECIAL | QUANT_PARSE_SPECIAL);
    const Session session = create_session(model.get(), options.sampling.context);

    const Generation result = generate(session.get(), prompt, options.sampling, Start::as_is, !options.json);
    if (options.json) {
        nlohmann::ordered_json object{{"text", result.text},
                                      {"tokens", result.tokens},
                                      {"stop", result.stop},
                                      {"seed", result.seed},
                                      {"load_seconds", load_seconds}};
        add_statistics(object, result.statistics);
        print_json(object);
    } else {
        finish_output();
        if (output_is_terminal())
            print("\n");
        else
            std::fputc('\n', stderr);
        note(format("%s, load %.2f s, seed %llu, stop: %s", statistics_text(result.statistics).c_str(), load_seconds,
                    static_cast<unsigned long long>(result.seed), result.stop));
    }
    return result.cancelled() ? exit_interrupted : exit_done;
}

}  // namespace cli
