#include "models/tokenizer_vocabulary.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "formats/error.h"
#include "models/unicode.h"

namespace quant {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's space

uint64_t load(const char* at, size_t bytes) {
    uint64_t word = 0;
    std::memcpy(&word, at, bytes);
    return word;
}

// Never stored, so that it may depend on the byte order.
uint64_t hash(std::string_view text) {
    constexpr uint64_t factor = 0x9E3779B97F4A7C15u;
    uint64_t h = text.size() * factor;
    auto mix = [&](uint64_t word) {
        h = (h ^ word) * factor;
        h ^= h >> 32;
    };
    const char* at = text.data();
    size_t left = text.size();
    for (; left > 8; at += 8, left -= 8) mix(load(at, 8));
    // The last 1 to 8 bytes, as two words of a fixed size that may overlap.
    if (left >= 4)
        mix(load(at, 4) << 32 ^ load(at + left - 4, 4));
    else if (left >= 2)
        mix(load(at, 2) << 16 ^ load(at + left - 2, 2));
    else if (left == 1)
        mix(load(at, 1));
    return h * factor;
}

// GPT-2's printable character of a byte: the byte's own code if that is a visible Latin-1 character, else 256, 257, ...
// in order. Here the way back, -1 where no byte has that character.
constexpr uint32_t kByteCharacters = 324;
constexpr std::array<int16_t, kByteCharacters> byte_characters() {
    std::array<int16_t, kByteCharacters> bytes{};
    for (auto& b : bytes) b = -1;
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
        bool visible = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        bytes[visible ? b : next++] = static_cast<int16_t>(b);
    }
    return bytes;
}
constexpr std::array<int16_t, kByteCharacters> kBytes = byte_characters();

}  // namespace

int Vocabulary::parse_byte(std::string_view piece) {
    if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
    int value = 0;
    for (char c : piece.substr(3, 2)) {
        bool digit = c >= '0' && c <= '9', letter = c >= 'A' && c <= 'F';
        if (!digit && !letter) return -1;
        value = value * 16 + (digit ? c - '0' : c - 'A' + 10);
    }
    return value;
}

void Vocabulary::unspell(std::string_view piece, std::string& out) const {
    if (spelling_ == Spelling::spaces) {
        for (size_t at; (at = piece.find(kSpace)) != piece.npos; piece.remove_prefix(at + kSpace.size()))
            out.append(piece.substr(0, at)) += ' ';
        out.append(piece);
        return;
    }
    // A piece with a character that stands for no byte is taken literally.
    size_t start = out.size();
    const char* end = piece.data() + piece.size();
    for (const char* at = piece.data(); at != end;) {
        if (*at > ' ' && *at <= '~') {
            out += *at++;
            continue;
        }
        Utf8 c = scan_utf8(at, end);
        if (!c.valid() || c.code >= kByteCharacters || kBytes[c.code] < 0) {
            out.resize(start);
            out.append(piece);
            return;
        }
        out += static_cast<char>(kBytes[c.code]);
        at += c.matched;
    }
}

Vocabulary::Vocabulary(Spelling spelling, const std::vector<std::string>& tokens, std::vector<TokenType> types)
    : spelling_(spelling), types_(std::move(types)) {
    uint64_t bytes = 0;
    for (const std::string& t : tokens) bytes += t.size();
    if (tokens.size() > 0x3FFFFFFF || bytes > UINT32_MAX)
        fail(QUANT_ERR_CORRUPT, "tokenizer.ggml.tokens: " + std::to_string(tokens.size()) + " tokens of " +
                                    std::to_string(bytes) + " bytes are more than a vocabulary can have");
    pool_.reserve(static_cast<size_t>(bytes));
    ends_.reserve(tokens.size() + 1);
    ends_.push_back(0);
    std::fill(std::begin(single_), std::end(single_), -1);
    std::fill(std::begin(bytes_), std::end(bytes_), -1);
    for (size_t i = 0; i < tokens.size(); ++i) {
        TokenType& type = types_[i];
        if (type == TokenType::byte) type = TokenType::normal;
        int byte = spelling == Spelling::spaces && type == TokenType::normal ? parse_byte(tokens[i]) : -1;
        if (byte >= 0) {
            type = TokenType::byte;
            pool_ += static_cast<char>(byte);
            if (bytes_[byte] < 0) bytes_[byte] = static_cast<int32_t>(i);
        } else if (type == TokenType::normal || type == TokenType::unused) {
            unspell(tokens[i], pool_);
        } else {
            pool_ += tokens[i];
        }
        ends_.push_back(static_cast<uint32_t>(pool_.size()));
    }

    size_t slots = 16;
    while (slots < tokens.size() * 2) slots *= 2;
    slots_.resize(slots, Slot{0, -1});
    auto ordinary = [&](size_t i) { return types_[i] == TokenType::normal || types_[i] == TokenType::unused; };
    // A SentencePiece piece spelled with a space proper is never met: text has U+2581 there.
    auto spelled = [&](size_t i) { return spelling == Spelling::bytes || tokens[i].find(' ') == std::string::npos; };
    for (size_t i = 0; i < tokens.size(); ++i)
        if (ordinary(i) && spelled(i)) insert(static_cast<int32_t>(i));
    for (size_t i = 0; i < tokens.size(); ++i)
        if (!ordinary(i) && types_[i] != TokenType::byte) insert(static_cast<int32_t>(i));
    for (int b = 0; b < 256; ++b) {
        char c = static_cast<char>(b);
        single_[b] = find_piece(std::string_view(&c, 1));
    }
}

size_t Vocabulary::probe(std::string_view piece, uint64_t hash) const {
    size_t i = home(hash);
    while (slots_[i].token >= 0 &&
           (slots_[i].tag != static_cast<uint32_t>(hash >> 32) || text(slots_[i].token) != piece))
        i = (i + 1) & (slots_.size() - 1);
    return i;
}

void Vocabulary::insert(int32_t token) {
    std::string_view piece = text(token);
    if (piece.empty()) return;
    uint64_t h = hash(piece);
    Slot& slot = slots_[probe(piece, h)];
    if (slot.token >= 0) return;
    slot = {static_cast<uint32_t>(h >> 32), token};
    longest_ = std::max(longest_, piece.size());
}

int32_t Vocabulary::find(std::string_view piece) const {
    return slots_[probe(piece, hash(piece))].token;
}

void Vocabulary::find_all(const std::vector<std::string_view>& texts, std::vector<int32_t>& tokens) const {
    // A pass each for slots, places of texts and texts over a batch, so that the loads of one pass overlap.
    constexpr size_t batch = 64;
    tokens.resize(texts.size());
    for (size_t start = 0; start < texts.size(); start += batch) {
        size_t n = std::min(batch, texts.size() - start);
        uint64_t hashes[batch];
        Slot home_slots[batch];
        std::string_view candidates[batch];
        for (size_t i = 0; i < n; ++i) hashes[i] = hash(texts[start + i]);
        for (size_t i = 0; i < n; ++i) home_slots[i] = slots_[home(hashes[i])];
        for (size_t i = 0; i < n; ++i) candidates[i] = text(std::max(home_slots[i].token, 0));
        for (size_t i = 0; i < n; ++i) {
            bool hit = home_slots[i].token >= 0 && candidates[i] == texts[start + i];
            tokens[start + i] = hit ? home_slots[i].token : slots_[probe(texts[start + i], hashes[i])].token;
        }
    }
}

}  // namespace quant
