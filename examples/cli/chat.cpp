// quant chat: a conversation in the model's chat template. What is already in the session's cache is not read again.
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "generation.h"
#include "interrupt.h"
#include "terminal.h"

namespace cli {
namespace {

struct Turn {
    std::string role, content;
};

// The conversation's tokens up to where the reply starts.
std::vector<int32_t> conversation_tokens(const quant_model* model, const std::vector<Turn>& turns) {
    std::vector<quant_message> messages;
    for (const Turn& turn : turns) messages.push_back({turn.role.c_str(), turn.content.c_str()});
    std::string text(4096, '\0');
    quant_error error{};
    for (;;) {
        size_t needed = 0;
        check(quant_chat_format(model, messages.data(), messages.size(), 1, &text[0], text.size(), &needed, &error),
              error);
        const bool complete = needed <= text.size();
        text.resize(needed);
        if (complete) return tokenize_text(model, text, QUANT_PARSE_SPECIAL);
    }
}

enum class Line { text, interrupted, end };

Line read_line(std::string& line) {
    line.clear();
    for (;;) {
        errno = 0;
        const int c = std::fgetc(stdin);
        if (c == EOF && errno == EINTR && interrupted()) {
            std::clearerr(stdin);
            return Line::interrupted;
        }
        if (c == EOF) return line.empty() ? Line::end : Line::text;
        if (c == '\n') return Line::text;
        if (c != '\r') line.push_back(static_cast<char>(c));
    }
}

class Conversation {
  public:
    Conversation(const ChatOptions& options, quant_model* model)
        : options_(options), model_(model), session_(create_session(model, options.sampling.context)) {
        reset();
    }

    void reset() {
        turns_.clear();
        if (!options_.system.empty()) turns_.push_back({"system", options_.system});
    }

    Generation reply(const std::string& text) {
        turns_.push_back({"user", text});
        try {
            std::vector<int32_t> tokens = fitting_tokens();
            size_t kept = 0;
            quant_error error{};
            check(quant_session_reuse(session_.get(), tokens.data(), tokens.size(), &kept, &error), error);
            tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(kept));
            Generation result =
                generate(session_.get(), tokens, options_.sampling, Start::without_spaces, !options_.json);
            turns_.push_back({"assistant", result.text});
            return result;
        } catch (...) {
            turns_.pop_back();
            throw;
        }
    }

    const std::vector<Turn>& turns() const { return turns_; }

  private:
    // Forgets the oldest exchanges, but not the system prompt, until a quarter of the context is free for the reply.
    std::vector<int32_t> fitting_tokens() {
        const size_t context = quant_session_context(session_.get());
        const size_t first = options_.system.empty() ? 0 : 1;
        std::vector<int32_t> tokens = conversation_tokens(model_, turns_);
        while (tokens.size() > context - context / 4 && turns_.size() > first + 2) {
            turns_.erase(turns_.begin() + static_cast<std::ptrdiff_t>(first),
                         turns_.begin() + static_cast<std::ptrdiff_t>(first) + 2);
            tokens = conversation_tokens(model_, turns_);
        }
        return tokens;
    }

    const ChatOptions& options_;
    quant_model* model_;
    Session session_;
    std::vector<Turn> turns_;
};

}  // namespace

int chat(const ChatOptions& options) {
    const Runtime runtime = create_runtime(options);
    const Model model = open_model(runtime.get(), options);
    if (!model_info(model.get()).has_chat_template) {
        throw Failure(exit_failed, options.model + " has no chat template that quant knows; use 'quant run'");
    }
    Conversation conversation(options, model.get());
    const bool interactive = input_is_terminal() && !options.json;
    if (interactive) note("/reset starts anew, /exit or end of input ends, Ctrl-C stops a reply");

    quant_statistics statistics{};
    std::string line;
    bool stopped = false;
    while (!stopped) {
        clear_interrupt();
        if (interactive) print("> ");
        const Line kind = read_line(line);
        if (kind == Line::end || line == "/exit") break;
        if (kind == Line::interrupted) {
            print("\n");
            stopped = !interactive;
            continue;
        }
        if (line == "/reset") conversation.reset();
        if (line.empty() || line == "/reset") continue;

        const Generation result = conversation.reply(line);
        statistics = result.statistics;
        if (!options.json) print("\n");
        stopped = !interactive && result.cancelled();
    }
    if (options.json) {
        nlohmann::ordered_json object{{"messages", nlohmann::ordered_json::array()}};
        for (const Turn& turn : conversation.turns()) {
            object["messages"].push_back({{"role", turn.role}, {"content", turn.content}});
        }
        add_statistics(object, statistics);
        print_json(object);
    } else {
        if (interactive) print("\n");
        note(statistics_text(statistics));
    }
    return stopped ? exit_interrupted : exit_done;
}

}  // namespace cli
