#include "models/tokenizer_added.h"

#include <algorithm>

namespace quant {

AddedTokens::AddedTokens(const Vocabulary& vocabulary) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
        TokenType type = vocabulary.type(id);
        bool special = type == TokenType::control || type == TokenType::unknown;
        if ((special || type == TokenType::user_defined) && !vocabulary.text(id).empty())
            entries_.push_back({vocabulary.text(id), id, special});
    }
    std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.text < b.text; });
    entries_.erase(
        std::unique(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.text == b.text; }),
        entries_.end());
    uint32_t entry = 0;
    for (uint32_t b = 0; b <= 256; ++b) {
        while (entry < entries_.size() && static_cast<uint8_t>(entries_[entry].text[0]) < b) ++entry;
        first_[b] = entry;
    }
}

AddedTokens::Match AddedTokens::find(std::string_view text, size_t from, bool special) const {
    for (size_t at = from; at < text.size(); ++at) {
        uint8_t byte = static_cast<uint8_t>(text[at]);
        const Entry *low = entries_.data() + first_[byte], *high = entries_.data() + first_[byte + 1u];
        // [low, high): the entries that agree with the text in `depth` bytes; the one that ends there comes first.
        const Entry* longest = nullptr;
        for (size_t depth = 1; low != high; ++depth) {
            if (low->text.size() == depth) {
                if (special || !low->special) longest = low;
                ++low;
            }
            if (at + depth == text.size()) break;
            byte = static_cast<uint8_t>(text[at + depth]);
            low = std::partition_point(low, high,
                                       [&](const Entry& e) { return static_cast<uint8_t>(e.text[depth]) < byte; });
            high = std::partition_point(low, high,
                                        [&](const Entry& e) { return static_cast<uint8_t>(e.text[depth]) == byte; });
        }
        if (longest != nullptr) return {at, longest->text.size(), longest->token};
    }
    return {text.size(), 0, -1};
}

}  // namespace quant
