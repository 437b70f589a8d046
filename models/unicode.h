// UTF-8, and the three classes of characters that tokenizers' splitting rules ask for.
#pragma once
#include <cstddef>
#include <cstdint>

namespace quant {

enum class CharClass : uint8_t { other, letter, number, space };  // \p{L}, \p{N}, \s
CharClass char_class(uint32_t code);

struct CharRange {
    uint32_t first, last;
    CharClass kind;
};
extern const CharRange kCharRanges[];  // sorted; unicode_tables.cpp
extern const size_t kCharRangeCount;

// What stands at the start of [at, end), at < end: `matched` bytes of a character that needs `needed`. An invalid
// first byte needs 0. Overlong forms, surrogates and codes past U+10FFFF are invalid.
struct Utf8 {
    uint32_t code;  // only if valid()
    uint32_t needed, matched;
    bool valid() const { return needed != 0 && matched == needed; }
};
Utf8 scan_utf8(const char* at, const char* end);

}  // namespace quant
