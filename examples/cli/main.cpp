// quant: the command line. Parses the options of every subcommand and turns failures into one line and a status.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>

#include "cli.h"
#include "interrupt.h"
#include "model.h"
#include "terminal.h"

namespace {

using namespace cli;

// CLI11's own names the largest double in its message.
const CLI::Validator not_negative(
    [](std::string& text) { return text.rfind('-', 0) == 0 ? "'" + text + "' is negative" : std::string(); },
    "NONNEGATIVE");

std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

void add_common(CLI::App* app, Options& o) {
    app->add_flag("--json", o.json, "Print one JSON object on standard output");
    app->add_flag("-v,--verbose", o.verbose, "Show what the library logs");
    app->add_option("--threads", o.threads, "Threads (default: physical cores)")->check(CLI::Range(0, 4096));
}

void add_model_options(CLI::App* app, ModelOptions& o) {
    add_common(app, o);
    app->add_option("--device", o.device, "Device, as 'quant devices' lists them (default: the best)")
        ->envname("QUANT_DEVICE");
    app->add_option("--layers", o.layers, "Layers on the device, the rest on cpu (default: all)")->check(not_negative);
    app->add_option("--scheme", o.scheme, "Quantize while loading: a16w8, a16w4:g32, a8w8, ... (default: as stored)");
    app->add_option("--head", o.head, "Scheme of the output head alone (default: the scheme)");
    app->add_option("--kv", o.kv, "Type of the cache: f16, s8, e4m3 (default: f16)");
    app->add_flag("--exact", o.exact, "Keep float activations in every float scheme");
    app->add_flag("--no-mmap", o.no_mmap, "Read the file instead of mapping it");
}

void add_model(CLI::App* app, ModelOptions& o) {
    app->add_option("MODEL", o.model, "GGUF file or Hugging Face directory")->required();
    add_model_options(app, o);
}

void add_text(CLI::App* app, TextOptions& o) {
    auto* prompt = app->add_option("-p,--prompt", o.prompt, "Text; '-' reads standard input");
    prompt->each([&o](const std::string&) { o.has_prompt = true; });
    app->add_option("-f,--file", o.file, "File with the text")->excludes(prompt);
}

void add_sampling(CLI::App* app, SamplingOptions& o) {
    app->add_option("-n", o.tokens, "Tokens at most (default: until the text ends)")->check(not_negative);
    app->add_option("--temp", o.temperature, "Temperature, 0 = greedy")->capture_default_str()->check(not_negative);
    app->add_option("--top-k", o.top_k, "Keep the k likeliest tokens, 0 = all")->check(not_negative);
    app->add_option("--top-p", o.top_p, "Keep the likeliest tokens up to this probability")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    app->add_option("--min-p", o.min_p, "Drop tokens less likely than this times the likeliest")
        ->check(CLI::Range(0.0, 1.0));
    app->add_option("--repeat-penalty", o.repeat_penalty, "Above 1: repeat less")->check(not_negative);
    app->add_option("--seed", o.seed, "The same seed gives the same text (default: random)")
        ->each([&o](const std::string&) { o.has_seed = true; });
    app->add_option("--stop", o.stop, "End before this text; may be given several times")->expected(1)->take_all();
    app->add_option("--ctx", o.context, "Positions of the session (default: the trained length)")->check(not_negative);
}

// Every subcommand's options live here; `command` is what the chosen one runs.
struct CommandLine {
    InfoOptions info_options;
    Options devices_options;
    RunOptions run_options;
    ChatOptions chat_options;
    QuantizeOptions quantize_options;
    PerplexityOptions perplexity_options;
    BenchOptions bench_options;
    TokenizeOptions tokenize_options;
    EvalOptions eval_options;
    std::function<int()> command;

    template <class O>
    CLI::App* add(CLI::App& app, const char* name, const char* what, int (*function)(const O&), const O& options) {
        CLI::App* sub = app.add_subcommand(name, what);
        sub->callback([this, function, &options] { command = [function, &options] { return function(options); }; });
        return sub;
    }

    void declare(CLI::App& app) {
        CLI::App* sub = add(app, "info", "Architecture, sizes and the contract of every tensor", info, info_options);
        add_model(sub, info_options);
        sub->add_flag("--tensors", info_options.tensors, "A line for every tensor");

        sub = add(app, "devices", "What this machine has and what each device supports", devices, devices_options);
        add_common(sub, devices_options);

        sub = add(app, "run", "Continue a text", run, run_options);
        add_model(sub, run_options);
        add_text(sub, run_options.text);
        add_sampling(sub, run_options.sampling);

        sub = add(app, "chat", "Talk, in the model's chat template", chat, chat_options);
        add_model(sub, chat_options);
        add_sampling(sub, chat_options.sampling);
        sub->add_option("--system", chat_options.system, "System prompt");

        sub = add(app, "quantize", "Write a quantized GGUF file", quantize, quantize_options);
        sub->add_option("IN", quantize_options.in, "GGUF file or Hugging Face directory")->required();
        sub->add_option("OUT", quantize_options.out, "GGUF file to write")->required();
        sub->add_option("--scheme", quantize_options.scheme,
                        "a16w8:g32:sym, a16w4:g32, a8w8, ... (default: as stored)");
        sub->add_option("--head", quantize_options.head, "Scheme of the output head alone (default: the scheme)");
        sub->add_option(
            "--pack", quantize_options.pack,
            "Lay the weights out for this device, \"cpu\" or one that `quant devices` lists: loads at once");
        add_common(sub, quantize_options);

        sub = add(app, "perplexity", "Perplexity of a text; divergence from another model", perplexity,
                  perplexity_options);
        add_model(sub, perplexity_options);
        sub->add_option("-f,--file", perplexity_options.file, "Text; '-' reads standard input")->required();
        sub->add_option("--ctx", perplexity_options.context, "Window (default: the trained length, at most 512)")
            ->check(CLI::Range(2, 1 << 24));
        sub->add_option("--bytes", perplexity_options.bytes, "Use only the text's first bytes");
        sub->add_option("--max-tokens", perplexity_options.tokens, "Use only the text's first tokens");
        auto* against = sub->add_option("--against", perplexity_options.against, "Model to compare with");
        sub->add_option("--against-scheme", perplexity_options.against_scheme, "Its scheme (default: as stored)")
            ->needs(against);
        sub->add_option("--against-kv", perplexity_options.against_kv, "Its type of the cache (default: --kv)")
            ->needs(against);

        sub = add(app, "bench", "Speed, against what the machine can do", bench, bench_options);
        auto* model = sub->add_option("MODEL", bench_options.model, "GGUF file or Hugging Face directory");
        auto* shape =
            sub->add_option("--shape", bench_options.shape, "Random weights in a known shape: llama3-8b, ...");
        shape->excludes(model);
        add_model_options(sub, bench_options);
        sub->add_option("-p", bench_options.prompt, "Tokens of the prompt")->capture_default_str()->check(not_negative);
        sub->add_option("-n", bench_options.tokens, "Tokens to decode")->capture_default_str()->check(not_negative);
        sub->add_option("-d,--depth", bench_options.depth, "Positions in the cache before decoding")
            ->capture_default_str()
            ->check(not_negative);
        sub->add_option("-b,--batch", bench_options.batch, "Sessions that advance together")
            ->capture_default_str()
            ->check(CLI::Range(1, max_watched_sessions));
        sub->add_option("-r,--repeat", bench_options.repeat, "Repetitions; the median counts")
            ->capture_default_str()
            ->check(CLI::Range(1, 1000));
        sub->add_option("--compare", bench_options.compare,
                        "Measure two schemes, devices or models in turn, and their ratio")
            ->expected(2);
        sub->add_option("--write", bench_options.write, "Only write the shape's model to this GGUF file")->needs(shape);

        sub = add(app, "tokenize", "Token ids of a text", tokenize, tokenize_options);
        add_model(sub, tokenize_options);
        add_text(sub, tokenize_options.text);
        sub->add_flag("--special", tokenize_options.special,
                      "Add the special tokens that the model wants around a text");
        sub->add_flag("--plain", tokenize_options.plain, "Special tokens written in the text are plain text");

        sub = add(app, "eval", "Raw logits after given tokens", eval, eval_options);
        add_model(sub, eval_options);
        sub->add_option("--tokens", eval_options.tokens, "Token ids: 1,2,3")->required()->delimiter(',');
        sub->add_option("--logits", eval_options.logits, "Write the last position's logits: float32, little-endian");
        sub->add_option("--greedy", eval_options.greedy, "Also continue with the likeliest tokens")
            ->check(not_negative);
    }
};

int run_command(const std::function<int()>& command) {
    try {
        int status = command();
        finish_output();
        return status;
    } catch (const Interrupted&) {
        note(format("interrupted after %.2f s", process_seconds()));
        return exit_interrupted;
    } catch (const OutputClosed&) {
        return exit_done;  // the reader has what it wanted
    } catch (const Failure& failure) {
        note(one_line(failure.what()));
        return failure.exit_status;
    } catch (const std::bad_alloc&) {
        note("out of memory; use a smaller model, scheme or context");
        return exit_failed;
    } catch (const std::exception& error) {
        note(one_line(error.what()));
        return exit_failed;
    }
}

}  // namespace

int main(int argc, char** argv) {
    process_seconds();  // the clock starts here
    prepare_terminal();
    catch_interrupts();

    CLI::App app{"Runs quantized language models."};
    app.name("quant");
    app.set_version_flag("--version", "quant " + std::to_string(QUANT_VERSION / 10000) + "." +
                                          std::to_string(QUANT_VERSION / 100 % 100) + "." +
                                          std::to_string(QUANT_VERSION % 100));
    app.require_subcommand(1);
    CommandLine line;
    line.declare(app);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {  // --help, --version
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        std::string name = "quant";
        for (const CLI::App* sub : app.get_subcommands()) name += " " + sub->get_name();
        note(one_line(error.what()) + "; see '" + name + " --help'");
        return exit_usage;
    }
    return run_command(line.command);
}
