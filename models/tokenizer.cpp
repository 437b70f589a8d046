#include "models/tokenizer.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "formats/error.h"
#include "models/tokenizer_added.h"
#include "models/tokenizer_merge.h"
#include "models/tokenizer_split.h"
#include "models/tokenizer_vocabulary.h"
#include "models/unicode.h"

namespace quant {

// Where encode puts a space in front of a stretch of text. The last two are Hugging Face's Metaspace schemes, which
// leave a stretch alone that starts with a space.
enum class SpacePrefix { never, every_stretch, always, first };

struct Tokenizer::Parts {
    Parts(Vocabulary::Spelling spelling, const std::vector<std::string>& tokens, std::vector<TokenType> types)
        : vocabulary(spelling, tokens, std::move(types)), added(vocabulary) {}

    Vocabulary vocabulary;
    AddedTokens added;
    std::unique_ptr<MergeTable> merges;  // null: pairs merge if the vocabulary has their text, by `ranks`
    std::vector<uint32_t> ranks;         // of each token, from its score
    bool byte_level = false;
    SplitRule split = SplitRule::gpt2;  // byte level only
    bool ignore_merges = false;         // byte level only: a piece that is a token is not merged
    SpacePrefix space_prefix = SpacePrefix::never;
    bool words_start_at_spaces = false;  // no token has a space after something else
    bool add_bos = false, add_eos = false;
    int32_t bos = -1, eos = -1, unknown = -1;
    std::vector<int32_t> ends;  // sorted
};

namespace {

using Parts = Tokenizer::Parts;

// ---- From metadata ----

std::string key(const char* name) {
    return std::string("tokenizer.ggml.") + name;
}

[[noreturn]] void corrupt(const std::string& what) {
    fail(QUANT_ERR_CORRUPT, what + ": the tokenizer contradicts itself");
}

int32_t checked_id(const std::string& name, int64_t id, size_t tokens) {
    if (id < 0 || static_cast<uint64_t>(id) >= tokens)
        corrupt(name + " names token " + std::to_string(id) + " of " + std::to_string(tokens));
    return static_cast<int32_t>(id);
}

int32_t read_id(const Metadata& metadata, const char* name, size_t tokens) {
    int64_t id = metadata.integer(key(name), -1);
    return id == -1 ? -1 : checked_id(key(name), id, tokens);
}

// A list of the metadata: null if absent; CORRUPT if it is of another kind or not as long as the tokens.
template <class T>
const T* read_list(const Metadata& metadata, const char* name, const T* list, size_t tokens) {
    if (list == nullptr && metadata.has(key(name))) corrupt(key(name) + " is not a list of the right kind");
    if (list != nullptr && list->size() != tokens)
        corrupt(key(name) + " has " + std::to_string(list->size()) + " values for " + std::to_string(tokens) +
                " tokens");
    return list;
}

std::vector<TokenType> read_types(const Metadata& metadata, size_t tokens) {
    std::vector<TokenType> types(tokens, TokenType::normal);
    const auto* given = read_list(metadata, "token_type", metadata.integers(key("token_type")), tokens);
    if (given == nullptr) {
        for (const char* name : {"bos_token_id", "eos_token_id", "eot_token_id"})
            if (int32_t id = read_id(metadata, name, tokens); id >= 0)
                types[static_cast<size_t>(id)] = TokenType::control;
        if (int32_t id = read_id(metadata, "unknown_token_id", tokens); id >= 0)
            types[static_cast<size_t>(id)] = TokenType::unknown;
        return types;
    }
    for (size_t i = 0; i < tokens; ++i) {
        int64_t type = (*given)[i];
        if (type < 0 || type > 6) corrupt(key("token_type") + " has type " + std::to_string(type));
        types[i] = type == 0 ? TokenType::normal : static_cast<TokenType>(type);
    }
    return types;
}

// Larger scores merge first: their float bits, made unsigned in the order of the values, from the top.
std::vector<uint32_t> read_ranks(const std::vector<double>& scores) {
    std::vector<uint32_t> ranks(scores.size());
    for (size_t i = 0; i < scores.size(); ++i) {
        float score = static_cast<float>(scores[i]) + 0.0f;  // no negative zero
        if (score != score) corrupt(key("scores") + " has a value that is not a number");
        uint32_t bits;
        std::memcpy(&bits, &score, 4);
        ranks[i] = bits >> 31 ? bits : 0x7FFFFFFFu - bits;
    }
    return ranks;
}

// The byte token that a merge calls "<0x0A>", or -1.
int32_t named_byte(const Vocabulary& vocabulary, std::string_view piece) {
    int byte = Vocabulary::parse_byte(piece);
    return byte < 0 ? -1 : vocabulary.byte_token(static_cast<uint8_t>(byte));
}

std::unique_ptr<MergeTable> read_merges(const Vocabulary& vocabulary, const std::vector<std::string>& merges) {
    if (merges.size() > 0x3FFFFFFF) corrupt(key("merges") + " is too long");
    auto table = std::make_unique<MergeTable>(merges.size());
    struct Line {
        std::string_view left, right;  // as the file spells them
        size_t start, middle, end;     // of left and right in `unspelled`
    };
    std::vector<Line> lines;
    std::string unspelled;
    std::vector<std::string_view> texts;  // of each line: left, right, both
    std::vector<int32_t> ids;
    constexpr size_t batch = 1024;
    for (size_t first = 0; first < merges.size(); first += batch) {
        lines.clear();
        unspelled.clear();
        for (size_t rank = first; rank < std::min(first + batch, merges.size()); ++rank) {
            std::string_view text = merges[rank];
            size_t space = text.find(' ', 1);
            if (space == text.npos) corrupt(key("merges") + " entry " + std::to_string(rank) + " is not two pieces");
            Line line{text.substr(0, space), text.substr(space + 1), unspelled.size(), 0, 0};
            vocabulary.unspell(line.left, unspelled);
            line.middle = unspelled.size();
            vocabulary.unspell(line.right, unspelled);
            line.end = unspelled.size();
            lines.push_back(line);
        }
        texts.clear();
        std::string_view all = unspelled;
        for (const Line& line : lines) {
            texts.push_back(all.substr(line.start, line.middle - line.start));
            texts.push_back(all.substr(line.middle, line.end - line.middle));
            texts.push_back(all.substr(line.start, line.end - line.start));
        }
        vocabulary.find_all(texts, ids);
        for (size_t i = 0; i < lines.size(); ++i) table->prefetch(ids[3 * i], ids[3 * i + 1]);
        for (size_t i = 0; i < lines.size(); ++i) {
            int32_t left = ids[3 * i], right = ids[3 * i + 1], merged = ids[3 * i + 2];
            if (left < 0) left = named_byte(vocabulary, lines[i].left);
            if (right < 0) right = named_byte(vocabulary, lines[i].right);
            if (left < 0 || right < 0 || merged < 0)
                corrupt(key("merges") + " entry " + std::to_string(first + i) + " names a piece that is no token");
            // Plain text never becomes a control token.
            if (vocabulary.plain(merged)) table->add(left, right, {static_cast<uint32_t>(first + i), merged});
        }
    }
    return table;
}

SplitRule read_split(const std::string& name) {
    if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") return SplitRule::llama3;
    if (name == "qwen2" || name == "deepseek-r1-qwen") return SplitRule::qwen2;
    if (name == "gpt-2" || name == "default") return SplitRule::gpt2;
    fail(QUANT_ERR_UNSUPPORTED,
         "tokenizer.ggml.pre \"" + name + "\" is not a splitting rule known here (llama-bpe, qwen2, gpt-2)");
}

SpacePrefix read_space_prefix(const Metadata& metadata, bool byte_level) {
    if (!metadata.boolean(key("add_space_prefix"), !byte_level)) return SpacePrefix::never;
    std::string scheme = metadata.text(key("space_prefix_scheme"), byte_level ? "always" : "");
    if (scheme == "first") return SpacePrefix::first;
    if (scheme == "always") return SpacePrefix::always;
    if (scheme.empty()) return SpacePrefix::every_stretch;
    fail(QUANT_ERR_UNSUPPORTED, key("space_prefix_scheme") + " \"" + scheme + "\" is not known here (first, always)");
}

bool spaces_start_words(const Vocabulary& vocabulary) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
        std::string_view text = vocabulary.text(id);
        for (size_t i = 1; i < text.size(); ++i)
            if (text[i] == ' ' && text[i - 1] != ' ' && vocabulary.find_piece(text) == id) return false;
    }
    return true;
}

std::vector<int32_t> read_ends(const Metadata& metadata, const Vocabulary& vocabulary) {
    constexpr std::string_view texts[] = {"<|eot_id|>",    "<|im_end|>",    "<|end|>",
                                          "<|endoftext|>", "<end_of_turn>", "<|eom_id|>"};
    size_t tokens = static_cast<size_t>(vocabulary.size());
    std::vector<int32_t> ends;
    for (const char* name : {"eos_token_id", "eot_token_id"})
        if (int32_t id = read_id(metadata, name, tokens); id >= 0) ends.push_back(id);
    if (const auto* ids = metadata.integers(key("eos_token_ids")))
        for (int64_t id : *ids) ends.push_back(checked_id(key("eos_token_ids"), id, tokens));
    for (int32_t id = 0; id < vocabulary.size(); ++id)
        if (vocabulary.type(id) == TokenType::control &&
            std::find(std::begin(texts), std::end(texts), vocabulary.text(id)) != std::end(texts))
            ends.push_back(id);
    std::sort(ends.begin(), ends.end());
    ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
    return ends;
}

// ---- Text to tokens ----

class Encoder {
  public:
    Encoder(const Parts& parts, std::vector<int32_t>& out) : parts_(parts), vocabulary_(parts.vocabulary), out_(out) {}

    // A stretch of text between added tokens; `first`: the text starts with it.
    void stretch(std::string_view text, bool first) {
        in_unknown_ = false;
        bool spaced = needs_space(text, first);
        if (parts_.byte_level) {
            if (spaced) text = spelled_.assign(" ").append(text);
            while (!text.empty()) {
                size_t n = first_piece(parts_.split, text);
                word(text.substr(0, n));
                text.remove_prefix(n);
            }
            return;
        }
        spelled_.assign(spaced ? " " : "");
        vocabulary_.unspell(text, spelled_);  // a literal U+2581 is a space, too
        text = spelled_;
        while (!text.empty()) {
            size_t n = text.size();
            if (parts_.words_start_at_spaces) {
                n = std::min(text.find_first_not_of(' '), n);
                n = std::min(text.find(' ', n), text.size());
            }
            word(text.substr(0, n));
            text.remove_prefix(n);
        }
    }

  private:
    bool needs_space(std::string_view text, bool first) const {
        if (parts_.space_prefix == SpacePrefix::never) return false;
        if (parts_.space_prefix == SpacePrefix::every_stretch) return true;
        bool has_one = text[0] == ' ' || (!parts_.byte_level && text.substr(0, 3) == "\xE2\x96\x81");
        return !has_one && (first || parts_.space_prefix == SpacePrefix::always);
    }

    // Text that no merge crosses the borders of.
    void word(std::string_view text) {
        if (parts_.ignore_merges) {
            int32_t whole = vocabulary_.find_piece(text);
            if (whole >= 0) {
                emit(whole);
                return;
            }
        }
        symbols(text);
        if (parts_.merges != nullptr) {
            word_.merge([this](const MergeWord::Symbol& left, const MergeWord::Symbol& right) {
                return parts_.merges->find(left.token, right.token);
            });
        } else {
            word_.merge([this, text](const MergeWord::Symbol& left, const MergeWord::Symbol& right) {
                if (left.size + right.size > vocabulary_.longest()) return Merge{0, -1};
                int32_t token = vocabulary_.find_piece(text.substr(left.start, left.size + right.size));
                return Merge{token < 0 ? 0 : parts_.ranks[static_cast<size_t>(token)], token};
            });
        }
        word_.each([this, text](const MergeWord::Symbol& s) {
            if (s.token >= 0)
                emit(s.token);
            else
                emit_bytes(text.substr(s.start, s.size));
        });
    }

    // The word's bytes (byte level) or characters. With a list of merges, a character that is no token stands as its
    // byte tokens, which merges may name.
    void symbols(std::string_view text) {
        word_.clear();
        const char* end = text.data() + text.size();
        for (uint32_t at = 0; at < text.size();) {
            uint32_t size = parts_.byte_level ? 1 : character_size(text.data() + at, end);
            std::string_view character = text.substr(at, size);
            int32_t token =
                size == 1 ? vocabulary_.find_piece(static_cast<uint8_t>(text[at])) : vocabulary_.find_piece(character);
            if (token < 0 && parts_.merges != nullptr && has_byte_tokens(character)) {
                for (uint32_t i = at; i < at + size; ++i)
                    word_.append(i, 1, vocabulary_.byte_token(static_cast<uint8_t>(text[i])));
            } else {
                word_.append(at, size, token);
            }
            at += size;
        }
    }

    static uint32_t character_size(const char* at, const char* end) {
        Utf8 c = scan_utf8(at, end);
        return c.valid() ? c.matched : 1;
    }

    bool has_byte_tokens(std::string_view text) const {
        return std::all_of(text.begin(), text.end(),
                           [this](char c) { return vocabulary_.byte_token(static_cast<uint8_t>(c)) >= 0; });
    }

    void emit(int32_t token) {
        out_.push_back(token);
        in_unknown_ = false;
    }

    // Text that is no piece: its byte tokens, else one unknown token for all that follows each other.
    void emit_bytes(std::string_view text) {
        if (has_byte_tokens(text)) {
            for (char c : text) emit(vocabulary_.byte_token(static_cast<uint8_t>(c)));
            return;
        }
        if (parts_.unknown < 0)
            fail(QUANT_ERR_UNSUPPORTED, "the tokenizer has no token for byte " +
                                            std::to_string(static_cast<uint8_t>(text[0])) + " of the text");
        if (!in_unknown_) out_.push_back(parts_.unknown);
        in_unknown_ = true;
    }

    const Parts& parts_;
    const Vocabulary& vocabulary_;
    std::vector<int32_t>& out_;
    MergeWord word_;
    std::string spelled_;
    bool in_unknown_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::create(const Metadata& metadata, int64_t vocabulary) {
    if (!metadata.has(key("model")) && !metadata.has(key("tokens"))) return nullptr;
    std::string model = metadata.text(key("model"), "");
    if (model != "llama" && model != "gpt2")
        fail(QUANT_ERR_UNSUPPORTED, "tokenizer.ggml.model \"" + model + "\" is not supported (llama, gpt2)");
    bool byte_level = model == "gpt2";

    const auto* tokens = metadata.strings(key("tokens"));
    if (tokens == nullptr || tokens->empty()) corrupt(key("tokens") + " is missing or not a list of texts");
    size_t count = tokens->size();
    if (vocabulary < 0 || count > static_cast<uint64_t>(vocabulary))
        corrupt(key("tokens") + " has " + std::to_string(count) + " tokens, the embedding " +
                std::to_string(vocabulary) + " rows");

    auto spelling = byte_level ? Vocabulary::Spelling::bytes : Vocabulary::Spelling::spaces;
    auto parts = std::make_unique<Parts>(spelling, *tokens, read_types(metadata, count));
    const Vocabulary& v = parts->vocabulary;
    parts->byte_level = byte_level;

    const auto* merges = metadata.strings(key("merges"));
    if (merges == nullptr && metadata.has(key("merges"))) corrupt(key("merges") + " is not a list of texts");
    if (merges != nullptr) {
        parts->merges = read_merges(v, *merges);
    } else {
        const auto* scores = read_list(metadata, "scores", metadata.numbers(key("scores")), count);
        if (byte_level || scores == nullptr)
            corrupt(key("merges") + (byte_level ? " is missing" : " and .scores are missing"));
        parts->ranks = read_ranks(*scores);
    }

    if (byte_level) parts->split = read_split(metadata.text(key("pre"), "default"));
    // Llama 3's files leave these two out.
    bool llama3 = byte_level && parts->split == SplitRule::llama3;
    parts->ignore_merges = byte_level && metadata.boolean(key("ignore_merges"), llama3);
    parts->add_bos = metadata.boolean(key("add_bos_token"), llama3 || !byte_level);
    parts->add_eos = metadata.boolean(key("add_eos_token"), false);
    parts->space_prefix = read_space_prefix(metadata, byte_level);
    parts->words_start_at_spaces = !byte_level && spaces_start_words(v);
    parts->bos = read_id(metadata, "bos_token_id", count);
    parts->eos = read_id(metadata, "eos_token_id", count);
    parts->unknown = read_id(metadata, "unknown_token_id", count);
    for (int32_t id = 0; parts->unknown < 0 && id < v.size(); ++id)
        if (v.type(id) == TokenType::unknown) parts->unknown = id;
    parts->ends = read_ends(metadata, v);
    return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(const std::string& text, bool add_special, bool parse_special) const {
    if (text.size() >= UINT32_MAX - 1)
        fail(QUANT_ERR_ARGUMENT, "a text of 4 GiB or more cannot be tokenized in one call");
    std::vector<int32_t> out;
    out.reserve(text.size() / 4 + 2);
    if (add_special && parts_->add_bos && parts_->bos >= 0) out.push_back(parts_->bos);
    Encoder encoder(*parts_, out);
    std::string_view all = text;
    for (size_t at = 0; at < all.size();) {
        AddedTokens::Match match = parts_->added.find(all, at, parse_special);
        if (match.at != at) encoder.stretch(all.substr(at, match.at - at), at == 0);
        if (match.token >= 0) out.push_back(match.token);
        at = match.at + match.size;
    }
    if (add_special && parts_->add_eos && parts_->eos >= 0) out.push_back(parts_->eos);
    return out;
}

// ---- Tokens to text ----

std::string Tokenizer::piece(int32_t token, bool special) const {
    if (token < 0 || token >= parts_->vocabulary.size() || (is_special(token) && !special)) return {};
    return std::string(parts_->vocabulary.text(token));
}

std::string Tokenizer::decode(const std::vector<int32_t>& tokens, bool special) const {
    std::string text;
    for (int32_t token : tokens) text += piece(token, special);
    bool strip = parts_->space_prefix != SpacePrefix::never && !parts_->byte_level;
    if (strip && !text.empty() && text[0] == ' ') text.erase(0, 1);
    return text;
}

int32_t Tokenizer::bos() const {
    return parts_->bos;
}
int32_t Tokenizer::eos() const {
    return parts_->eos;
}
bool Tokenizer::adds_bos() const {
    return parts_->add_bos && parts_->bos >= 0;
}
int64_t Tokenizer::size() const {
    return parts_->vocabulary.size();
}

bool Tokenizer::is_end(int32_t token) const {
    return std::binary_search(parts_->ends.begin(), parts_->ends.end(), token);
}

bool Tokenizer::is_special(int32_t token) const {
    if (token < 0 || token >= parts_->vocabulary.size()) return false;
    TokenType type = parts_->vocabulary.type(token);
    return type == TokenType::control || type == TokenType::unknown;
}

}  // namespace quant
