// Added tokens (control and user-defined), found in a text: at each place the longest one that stands there.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "models/tokenizer_vocabulary.h"

namespace quant {

class AddedTokens {
  public:
    explicit AddedTokens(const Vocabulary& vocabulary);  // refers to its texts

    struct Match {
        size_t at, size;
        int32_t token;  // -1: none; at = the text's size
    };
    // The first at or after `from`. special: control and unknown tokens too.
    Match find(std::string_view text, size_t from, bool special) const;

  private:
    struct Entry {
        std::string_view text;
        int32_t token;
        bool special;
    };
    std::vector<Entry> entries_;  // sorted by text
    uint32_t first_[257];         // entries whose first byte is b: [first_[b], first_[b + 1])
};

}  // namespace quant
