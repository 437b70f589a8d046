// A tokenizer from arbitrary metadata, then an arbitrary text through it and back, and through the UTF-8 stream.
#include <algorithm>
#include <cstdlib>

#include "formats/error.h"
#include "models/chat.h"
#include "models/tokenizer.h"

using namespace quant;

namespace {

// Takes values off the front of the input; zeros when it is used up.
class Input {
  public:
    Input(const uint8_t* data, size_t size) : at_(data), left_(size) {}
    uint8_t byte() {
        if (left_ == 0) return 0;
        --left_;
        return *at_++;
    }
    std::string text(size_t most) {
        const size_t n = std::min<size_t>(most == 0 ? 0 : byte() % (most + 1), left_);
        return take(n);
    }
    std::string rest() { return take(left_); }

  private:
    std::string take(size_t n) {
        const std::string text(reinterpret_cast<const char*>(at_), n);
        at_ += n;
        left_ -= n;
        return text;
    }
    const uint8_t* at_;
    size_t left_;
};

void require(bool right) {
    if (!right) std::abort();
}

// GPT-2's spelling of the bytes below 33 and of the visible ASCII characters; the others are left out.
std::string spelled(int byte) {
    if (byte > 32) return std::string(1, static_cast<char>(byte));
    return {static_cast<char>(0xC4), static_cast<char>(0x80 + byte)};
}

Metadata metadata(Input& in) {
    Metadata m;
    const uint8_t flags = in.byte();
    const bool byte_level = flags & 1, well_formed = flags & 2;
    std::vector<std::string> tokens;
    std::vector<int64_t> types;
    std::vector<double> scores;
    if (well_formed) {  // deeper than random tokens get
        const char* digits = "0123456789ABCDEF";
        for (int b = 0; b < (byte_level ? 127 : 256); ++b) {
            tokens.push_back(byte_level ? spelled(b) : std::string("<0x") + digits[b >> 4] + digits[b & 15] + ">");
            types.push_back(byte_level ? 1 : 6);
        }
        tokens.emplace_back("<unk>");
        types.push_back(2);
    }
    for (uint8_t n = in.byte(); n > 0; --n) {
        tokens.push_back(in.text(6));
        types.push_back(well_formed ? in.byte() % 6 : in.byte() % 8);
    }
    for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(static_cast<int8_t>(in.byte()) / 4.0);
    std::vector<std::string> merges;
    for (uint8_t n = in.byte() % 32; n > 0; --n)
        merges.push_back(well_formed && !tokens.empty()
                             ? tokens[in.byte() % tokens.size()] + " " + tokens[in.byte() % tokens.size()]
                             : in.text(8));

    const char* rules[] = {"llama-bpe", "qwen2", "gpt-2", "default", "other"};
    m.set("tokenizer.ggml.model", std::string(byte_level ? "gpt2" : "llama"));
    m.set("tokenizer.ggml.pre", std::string(rules[in.byte() % (well_formed ? 4 : 5)]));
    if (!(flags & 4) || byte_level) m.set("tokenizer.ggml.merges", merges);
    if (flags & 4) m.set("tokenizer.ggml.scores", scores);
    if (!(flags & 8) || well_formed) m.set("tokenizer.ggml.token_type", types);
    if (flags & 16) m.set("tokenizer.ggml.bos_token_id", uint64_t{in.byte()});
    if (flags & 32) m.set("tokenizer.ggml.eos_token_ids", std::vector<int64_t>{in.byte(), in.byte()});
    if (flags & 64) m.set("tokenizer.ggml.unknown_token_id", int64_t{static_cast<int8_t>(in.byte())});
    if (flags & 128) m.set("tokenizer.ggml.add_space_prefix", false);
    m.set("tokenizer.ggml.tokens", std::move(tokens));
    return m;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Input in(data, size);
    try {
        const Metadata m = metadata(in);
        const auto t = Tokenizer::create(m, 500);
        const std::string chat_template = in.text(200), text = in.rest();
        recognise_chat_template(chat_template);
        for (const bool special : {false, true}) {
            std::vector<int32_t> ids;
            try {
                ids = t->encode(text, special, special);
            } catch (const Error& e) {
                require(e.status() == QUANT_ERR_UNSUPPORTED);
                continue;
            }
            Utf8Stream stream;
            std::string shown;
            for (int32_t id : ids) {
                require(id >= 0 && id < t->size());
                require(special || t->piece(id, true).empty() || t->is_special(id) == t->piece(id, false).empty());
                t->is_end(id);
                shown += stream.push(t->piece(id, true));
            }
            shown += stream.flush();
            Utf8Stream again;  // what was shown is valid UTF-8
            require(again.push(shown) == shown && again.flush().empty());
            t->decode(ids, special);
        }
    } catch (const Error&) {
    }
    return 0;
}
