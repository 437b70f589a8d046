// Chat templates, recognised from the template's text (not a Jinja interpreter): llama2, llama3, chatml, zephyr, and
// the embedded model's ("<|user|>...<|end|><|assistant|>").
#pragma once
#include <string>
#include <vector>

namespace quant {

enum class ChatTemplate { none, llama2, llama3, chatml, zephyr, tagged };
ChatTemplate recognise_chat_template(const std::string& jinja);

struct ChatMessage {
    std::string role, content;
};
// `bos`: the text of the BOS token, put where the template puts it. Throws Error(UNSUPPORTED) for none, ARGUMENT for a role the
// template does not have.
std::string format_chat(ChatTemplate kind, const std::string& bos, const std::vector<ChatMessage>& messages, bool add_reply);

}  // namespace quant
