// Chat templates, recognised from the template's text (not a Jinja interpreter): llama2, mistral, llama3, chatml,
// zephyr, and the embedded model's ("<|user|>...<|end|><|assistant|>"). Whitespace is exactly the templates'.
#pragma once
#include <string>
#include <vector>

namespace quant {

enum class ChatTemplate { none, llama2, mistral, llama3, chatml, zephyr, tagged };
ChatTemplate recognise_chat_template(const std::string& jinja);

struct ChatMessage {
    std::string role, content;
};
// `bos`: the text of the BOS token, put where the template puts it. Throws Error(UNSUPPORTED) for none, ARGUMENT for a
// role the template does not have. Llama 3.1's system header with today's date is left out.
std::string format_chat(ChatTemplate kind, const std::string& bos, const std::vector<ChatMessage>& messages,
                        bool add_reply);

// The whole way from a template's text to a prompt that can be tokenized with special tokens parsed and none added:
// format_chat, with the default system message that some chatml templates (Qwen2) put in front of a conversation
// without one, and with BOS in front also where the template leaves that to the tokenizer (zephyr, chatml) and the
// tokenizer does it (`adds_bos`).
std::string render_chat(const std::string& jinja, const std::string& bos, bool adds_bos,
                        std::vector<ChatMessage> messages, bool add_reply);

}  // namespace quant
