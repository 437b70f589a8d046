// The tokens of a tokenizer: their bytes in running text, their types, and the way back from bytes to a token. All
// texts lie in one pool, so that 128,000 tokens are three allocations.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quant {

enum class TokenType : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };  // GGUF's numbers

class Vocabulary {
  public:
    // How the file spells a piece. `spaces`: U+2581 stands for a space (SentencePiece). `bytes`: every byte is written
    // as one printable character (GPT-2).
    enum class Spelling { spaces, bytes };

    // As many types as tokens. A SentencePiece piece "<0x0A>" becomes a byte token even if its type says normal.
    // Throws Error(CORRUPT) if the vocabulary is too large.
    Vocabulary(Spelling spelling, const std::vector<std::string>& tokens, std::vector<TokenType> types);

    int32_t size() const { return static_cast<int32_t>(types_.size()); }
    TokenType type(int32_t token) const { return types_[static_cast<size_t>(token)]; }
    bool plain(int32_t token) const { return type(token) != TokenType::control && type(token) != TokenType::unknown; }
    // As it stands in running text: a space is a space, a byte token is its byte. Added tokens are taken literally.
    std::string_view text(int32_t token) const {
        size_t i = static_cast<size_t>(token);
        return std::string_view(pool_).substr(ends_[i], ends_[i + 1] - ends_[i]);
    }

    // The token with these bytes, or -1: ordinary pieces before added tokens, then the first. Never a byte token.
    int32_t find(std::string_view text) const;
    // find() of many texts: their cache misses overlap, which makes it several times as fast in a large vocabulary.
    void find_all(const std::vector<std::string_view>& texts, std::vector<int32_t>& tokens) const;
    // find(), but never a control or unknown token: what plain text may become.
    int32_t find_piece(std::string_view text) const {
        int32_t token = find(text);
        return token >= 0 && plain(token) ? token : -1;
    }
    // find_piece of one byte.
    int32_t find_piece(uint8_t byte) const { return single_[byte]; }
    // The byte token <0x..>, or -1.
    int32_t byte_token(uint8_t byte) const { return bytes_[byte]; }

    // Appends the running text of a piece as the file spells it.
    void unspell(std::string_view piece, std::string& out) const;
    // The byte that "<0x0A>" names, or -1.
    static int parse_byte(std::string_view piece);

    size_t longest() const { return longest_; }

  private:
    struct Slot {
        uint32_t tag;
        int32_t token;  // -1 = free
    };
    size_t home(uint64_t hash) const { return static_cast<size_t>(hash >> 20) & (slots_.size() - 1); }
    // The slot of a text with this hash, or the free one where it belongs; the search starts at home(hash).
    size_t probe(std::string_view text, uint64_t hash) const;
    void insert(int32_t token);

    Spelling spelling_;
    std::vector<TokenType> types_;
    std::string pool_;
    std::vector<uint32_t> ends_;  // size() + 1: token i is pool_[ends_[i], ends_[i + 1])
    std::vector<Slot> slots_;     // open addressing, a power of two
    int32_t single_[256], bytes_[256];
    size_t longest_ = 0;
};

}  // namespace quant
