// Chat templates: recognised from the templates that models ship, and rendered to the character. The expected texts are
// what a Jinja interpreter made of the same templates.
#include "models/chat.h"

#include <catch2/catch.hpp>

#include "formats/error.h"

using namespace quant;

namespace {

const std::vector<ChatMessage> kTurns = {{"user", " Hi \n"}, {"assistant", "Hello!"}, {"user", "Bye"}};

std::vector<ChatMessage> with_system() {
    std::vector<ChatMessage> all = kTurns;
    all.insert(all.begin(), {"system", "Be brief."});
    return all;
}

const char* kTagged =
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
const char* kChatml =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const char* kQwen2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const char* kZephyr =
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + "
    "eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif "
    "%}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
const char* kLlama3 =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}";
const char* kLlama2 =
    "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{{ ' ' + content.strip() + ' ' + eos_token }}";
const char* kMistral =
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
    "' "
    "[/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}";

quant_status status_of(ChatTemplate kind, const std::vector<ChatMessage>& messages) {
    try {
        format_chat(kind, "<s>", messages, true);
    } catch (const Error& e) {
        return e.status();
    }
    return QUANT_OK;
}

}  // namespace

TEST_CASE("chat templates are recognised", "[chat]") {
    CHECK(recognise_chat_template(kTagged) == ChatTemplate::tagged);
    CHECK(recognise_chat_template(kChatml) == ChatTemplate::chatml);
    CHECK(recognise_chat_template(kQwen2) == ChatTemplate::chatml);
    CHECK(recognise_chat_template(kZephyr) == ChatTemplate::zephyr);
    CHECK(recognise_chat_template(kLlama3) == ChatTemplate::llama3);
    CHECK(recognise_chat_template(kLlama2) == ChatTemplate::llama2);
    CHECK(recognise_chat_template(kMistral) == ChatTemplate::mistral);
    CHECK(recognise_chat_template("") == ChatTemplate::none);
    CHECK(recognise_chat_template("{{ messages[0]['content'] }}") == ChatTemplate::none);
    // Phi-3 has the tags, but newlines around them.
    CHECK(recognise_chat_template(
              "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + eos_token}}") ==
          ChatTemplate::none);
}

TEST_CASE("chat templates are rendered to the character", "[chat]") {
    CHECK(format_chat(ChatTemplate::tagged, "<s>", {{"user", "Tell me a story about a cat."}}, true) ==
          "<s><|user|>Tell me a story about a cat.<|end|><|assistant|>");
    CHECK(format_chat(ChatTemplate::tagged, "<s>", kTurns, false) ==
          "<s><|user|> Hi \n<|end|><|assistant|>Hello!<|end|><|user|>Bye<|end|>");
    CHECK(format_chat(ChatTemplate::chatml, "<s>", with_system(), true) ==
          "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n<|im_start|>assistant\nHello!"
          "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
    CHECK(format_chat(ChatTemplate::zephyr, "<s>", with_system(), true) ==
          "<|system|>\nBe brief.</s>\n<|user|>\n Hi "
          "\n</s>\n<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n<|assistant|>\n");
    CHECK(format_chat(ChatTemplate::zephyr, "<s>", kTurns, false) ==
          "<|user|>\n Hi \n</s>\n<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n");
    CHECK(format_chat(ChatTemplate::llama3, "<|begin_of_text|>", with_system(), true) ==
          "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
          "<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    CHECK(format_chat(ChatTemplate::llama2, "<s>", with_system(), true) ==
          "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello! </s><s>[INST] Bye [/INST]");
    CHECK(format_chat(ChatTemplate::llama2, "<s>", kTurns, true) ==
          "<s>[INST] Hi [/INST] Hello! </s><s>[INST] Bye [/INST]");
    CHECK(format_chat(ChatTemplate::mistral, "<s>", kTurns, true) ==
          "<s>[INST]  Hi \n [/INST]Hello!</s>[INST] Bye [/INST]");
}

TEST_CASE("the default system message and BOS go where the tokenizer would put them", "[chat]") {
    const std::vector<ChatMessage> hi = {{"user", "Hi"}};
    CHECK(render_chat(kQwen2, "<|endoftext|>", false, hi, true) ==
          "<|im_start|>system\nYou are a helpful "
          "assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    CHECK(render_chat(kQwen2, "", false, {{"system", "Rhyme."}, {"user", "Hi"}}, false) ==
          "<|im_start|>system\nRhyme.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    CHECK(render_chat(kChatml, "<s>", true, hi, false) == "<s><|im_start|>user\nHi<|im_end|>\n");
    CHECK(render_chat(kZephyr, "<s>", true, hi, true) == "<s><|user|>\nHi</s>\n<|assistant|>\n");
    CHECK(render_chat(kZephyr, "<s>", false, hi, true) == "<|user|>\nHi</s>\n<|assistant|>\n");
    CHECK(render_chat(kTagged, "<s>", true, hi, true) == "<s><|user|>Hi<|end|><|assistant|>");
    // Qwen2.5 writes the literal among others; a computed one is not taken.
    const std::string computed = "{{- '<|im_start|>system\\n' }}{{- messages[0]['content'] + '<|im_end|>\\n' }}";
    CHECK(render_chat(computed, "", false, hi, false) == "<|im_start|>user\nHi<|im_end|>\n");
    CHECK(render_chat(computed + "{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}", "", false, hi, false) ==
          "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
}

TEST_CASE("roles that a template does not have are refused", "[chat]") {
    CHECK(status_of(ChatTemplate::none, kTurns) == QUANT_ERR_UNSUPPORTED);
    for (ChatTemplate kind : {ChatTemplate::llama2, ChatTemplate::mistral, ChatTemplate::llama3, ChatTemplate::chatml,
                              ChatTemplate::zephyr, ChatTemplate::tagged}) {
        CHECK(status_of(kind, kTurns) == QUANT_OK);
        CHECK(status_of(kind, {{"wizard", "x"}}) == QUANT_ERR_ARGUMENT);
    }
    CHECK(status_of(ChatTemplate::tagged, with_system()) == QUANT_ERR_ARGUMENT);
    CHECK(status_of(ChatTemplate::mistral, with_system()) == QUANT_ERR_ARGUMENT);
    CHECK(status_of(ChatTemplate::llama2, {{"user", "a"}, {"user", "b"}}) == QUANT_ERR_ARGUMENT);
    CHECK(status_of(ChatTemplate::llama2, {{"assistant", "a"}}) == QUANT_ERR_ARGUMENT);
    CHECK(status_of(ChatTemplate::llama2, {{"system", "a"}}) == QUANT_ERR_ARGUMENT);
    CHECK(status_of(ChatTemplate::llama2, {{"user", "a"}, {"system", "b"}}) == QUANT_ERR_ARGUMENT);
}
