#include "models/chat.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "formats/error.h"

namespace quant {
namespace {

// Llama 2, Mistral and Zephyr end a turn with the EOS token, which all of them call so.
constexpr const char* kEnd = "</s>";

std::string trimmed(const std::string& text) {
    constexpr const char* spaces = " \t\n\v\f\r";
    size_t first = text.find_first_not_of(spaces);
    if (first == text.npos) return {};
    return text.substr(first, text.find_last_not_of(spaces) - first + 1);
}

void check_roles(const std::vector<ChatMessage>& messages, std::initializer_list<std::string_view> roles) {
    for (const ChatMessage& m : messages) {
        if (std::find(roles.begin(), roles.end(), m.role) != roles.end()) continue;
        std::string known;
        for (std::string_view role : roles) known.append(known.empty() ? "" : ", ").append(role);
        fail(QUANT_ERR_ARGUMENT, "the chat template has no role \"" + m.role + "\" (" + known + ")");
    }
}

// user, assistant, user, ... from messages[first].
void check_alternation(const std::vector<ChatMessage>& messages, size_t first) {
    for (size_t i = first; i < messages.size(); ++i)
        if (messages[i].role != ((i - first) % 2 == 0 ? "user" : "assistant"))
            fail(QUANT_ERR_ARGUMENT, "message " + std::to_string(i) +
                                         ": after an optional system message, the chat template wants user and "
                                         "assistant in turn, user first");
}

std::string llama2(const std::string& bos, const std::vector<ChatMessage>& messages) {
    check_roles(messages, {"system", "user", "assistant"});
    size_t first = !messages.empty() && messages[0].role == "system" ? 1 : 0;
    check_alternation(messages, first);
    if (first == messages.size()) fail(QUANT_ERR_ARGUMENT, "the chat template wants a user message");
    std::string text;
    for (size_t i = first; i < messages.size(); ++i) {
        std::string content = messages[i].content;
        if (i == 1 && first == 1) content = "<<SYS>>\n" + messages[0].content + "\n<</SYS>>\n\n" + content;
        if (messages[i].role == "user")
            text += bos + "[INST] " + trimmed(content) + " [/INST]";
        else
            text += " " + trimmed(content) + " " + kEnd;
    }
    return text;
}

std::string mistral(const std::string& bos, const std::vector<ChatMessage>& messages) {
    check_roles(messages, {"user", "assistant"});
    check_alternation(messages, 0);
    std::string text = bos;
    for (const ChatMessage& m : messages)
        text += m.role == "user" ? "[INST] " + m.content + " [/INST]" : m.content + kEnd;
    return text;
}

std::string llama3(const std::string& bos, const std::vector<ChatMessage>& messages, bool add_reply) {
    check_roles(messages, {"system", "user", "assistant"});
    std::string text = bos;
    for (const ChatMessage& m : messages)
        text += "<|start_header_id|>" + m.role + "<|end_header_id|>\n\n" + trimmed(m.content) + "<|eot_id|>";
    if (add_reply) text += "<|start_header_id|>assistant<|end_header_id|>\n\n";
    return text;
}

std::string chatml(const std::vector<ChatMessage>& messages, bool add_reply) {
    check_roles(messages, {"system", "user", "assistant"});
    std::string text;
    for (const ChatMessage& m : messages) text += "<|im_start|>" + m.role + "\n" + m.content + "<|im_end|>\n";
    if (add_reply) text += "<|im_start|>assistant\n";
    return text;
}

std::string zephyr(const std::vector<ChatMessage>& messages, bool add_reply) {
    check_roles(messages, {"system", "user", "assistant"});
    std::string text;
    for (const ChatMessage& m : messages) text += "<|" + m.role + "|>\n" + m.content + kEnd + "\n";
    if (add_reply) text += "<|assistant|>\n";
    return text;
}

std::string tagged(const std::string& bos, const std::vector<ChatMessage>& messages, bool add_reply) {
    check_roles(messages, {"user", "assistant"});
    std::string text = bos;
    for (const ChatMessage& m : messages) text += "<|" + m.role + "|>" + m.content + "<|end|>";
    if (add_reply) text += "<|assistant|>";
    return text;
}

bool contains(const std::string& text, const char* part) {
    return text.find(part) != text.npos;
}

// The literal text of "<|im_start|>system\nTEXT<|im_end|>" in a chatml template. The newline may be one or be written
// \n.
std::string default_system_message(const std::string& jinja) {
    const std::string open = "<|im_start|>system", close = "<|im_end|>";
    for (size_t at = jinja.find(open); at != jinja.npos; at = jinja.find(open, at + 1)) {
        size_t start = at + open.size(), end = jinja.find(close, start);
        if (end == jinja.npos) break;
        std::string text = jinja.substr(start, end - start);
        size_t newline = text.compare(0, 1, "\n") == 0 ? 1 : text.compare(0, 2, "\\n") == 0 ? 2 : 0;
        if (newline == 0) continue;
        text.erase(0, newline);
        if (text.find_first_of("'\"\\{") == text.npos) return text;  // one literal, with nothing computed in it
    }
    return {};
}

}  // namespace

ChatTemplate recognise_chat_template(const std::string& jinja) {
    if (contains(jinja, "<|im_start|>")) return ChatTemplate::chatml;
    if (contains(jinja, "<|start_header_id|>")) return ChatTemplate::llama3;
    if (contains(jinja, "[INST]") && contains(jinja, "<<SYS>>")) return ChatTemplate::llama2;
    // Mistral 7B v0.2; the later ones space it otherwise.
    if (contains(jinja, "'[INST] ' + message['content'] + ' [/INST]'") &&
        contains(jinja, "message['content'] + eos_token}}"))
        return ChatTemplate::mistral;
    bool newlines = contains(jinja, "\n") || contains(jinja, "\\n");
    if (contains(jinja, "<|end|>") && contains(jinja, "<|assistant|>") && !newlines) return ChatTemplate::tagged;
    if (contains(jinja, "<|user|>") && contains(jinja, "<|assistant|>") && contains(jinja, "eos_token") && newlines &&
        !contains(jinja, "<|end|>"))
        return ChatTemplate::zephyr;
    return ChatTemplate::none;
}

std::string format_chat(ChatTemplate kind, const std::string& bos, const std::vector<ChatMessage>& messages,
                        bool add_reply) {
    switch (kind) {
        case ChatTemplate::llama2:
            return llama2(bos, messages);
        case ChatTemplate::mistral:
            return mistral(bos, messages);
        case ChatTemplate::llama3:
            return llama3(bos, messages, add_reply);
        case ChatTemplate::chatml:
            return chatml(messages, add_reply);
        case ChatTemplate::zephyr:
            return zephyr(messages, add_reply);
        case ChatTemplate::tagged:
            return tagged(bos, messages, add_reply);
        case ChatTemplate::none:
            break;
    }
    fail(QUANT_ERR_UNSUPPORTED, "the model has no chat template that is known here: give it plain text");
}

std::string render_chat(const std::string& jinja, const std::string& bos, bool adds_bos,
                        std::vector<ChatMessage> messages, bool add_reply) {
    ChatTemplate kind = recognise_chat_template(jinja);
    if (kind == ChatTemplate::chatml && (messages.empty() || messages[0].role != "system")) {
        std::string system = default_system_message(jinja);
        if (!system.empty()) messages.insert(messages.begin(), {"system", system});
    }
    bool left_to_tokenizer = kind == ChatTemplate::chatml || kind == ChatTemplate::zephyr;
    return (left_to_tokenizer && adds_bos ? bos : "") + format_chat(kind, bos, messages, add_reply);
}

}  // namespace quant
