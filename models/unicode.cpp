#include "models/unicode.h"

#include <algorithm>

namespace quant {

CharClass char_class(uint32_t code) {
    const CharRange* end = kCharRanges + kCharRangeCount;
    const CharRange* range =
        std::lower_bound(kCharRanges, end, code, [](const CharRange& r, uint32_t c) { return r.last < c; });
    return range != end && code >= range->first ? range->kind : CharClass::other;
}

Utf8 scan_utf8(const char* at, const char* end) {
    uint8_t first = static_cast<uint8_t>(*at);
    if (first < 0x80) return {first, 1, 1};
    // The second byte's range excludes overlong forms, surrogates and codes past U+10FFFF.
    uint8_t low = 0x80, high = 0xBF;
    uint32_t needed, code;
    if (first >= 0xC2 && first <= 0xDF) {
        needed = 2;
        code = first & 0x1Fu;
    } else if ((first & 0xF0) == 0xE0) {
        needed = 3;
        code = first & 0x0Fu;
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
        needed = 4;
        code = first & 0x07u;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
    } else {
        return {0, 0, 0};
    }
    uint32_t matched = 1;
    for (++at; matched < needed && at != end; ++at, ++matched) {
        uint8_t byte = static_cast<uint8_t>(*at);
        if (byte < low || byte > high) break;
        low = 0x80;
        high = 0xBF;
        code = code << 6 | (byte & 0x3Fu);
    }
    return {code, needed, matched};
}

}  // namespace quant
