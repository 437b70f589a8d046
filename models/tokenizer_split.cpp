#include "models/tokenizer_split.h"

#include <cstdint>

#include "models/unicode.h"

namespace quant {
namespace {

struct Character {
    CharClass kind;
    size_t size;
};

Character read(const char* at, const char* end) {
    uint8_t c = static_cast<uint8_t>(*at);
    if (c < 0x80) {
        uint8_t lower = c | 0x20;
        if (lower >= 'a' && lower <= 'z') return {CharClass::letter, 1};
        if (c >= '0' && c <= '9') return {CharClass::number, 1};
        if (c == ' ' || (c >= '\t' && c <= '\r')) return {CharClass::space, 1};
        return {CharClass::other, 1};
    }
    Utf8 found = scan_utf8(at, end);
    if (!found.valid()) return {CharClass::other, 1};
    return {char_class(found.code), found.matched};
}

bool is(CharClass kind, const char* at, const char* end) {
    return at != end && read(at, end).kind == kind;
}

// Past the characters of one class that start at `at`, at most `most`.
const char* skip(CharClass kind, const char* at, const char* end, size_t most = SIZE_MAX) {
    for (; most != 0 && at != end; --most) {
        Character c = read(at, end);
        if (c.kind != kind) break;
        at += c.size;
    }
    return at;
}

bool is_newline(char c) {
    return c == '\r' || c == '\n';
}

// Past 's 't 're 've 'm 'll 'd, or `at` where none of them stands. Without regard to case, the long s (U+017F) is an s
// too.
const char* skip_contraction(const char* at, const char* end, bool any_case) {
    if (*at != '\'') return at;
    auto letter = [&](size_t i) {
        if (static_cast<size_t>(end - at) <= i) return '\0';
        char c = at[i];
        return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    };
    char first = letter(1), second = letter(2);
    if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l'))
        return at + 3;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
    if (any_case && first == '\xC5' && second == '\xBF') return at + 3;
    return at;
}

// \s+(?!\S)|\s+ : all the spaces at the end of the text, else all but the last one, which goes with what follows.
const char* skip_spaces(const char* at, const char* end) {
    const char* last = at;
    for (const char* next = at; next != end;) {
        Character c = read(next, end);
        if (c.kind != CharClass::space) return last == at ? next : last;
        last = next;
        next += c.size;
    }
    return end;
}

const char* gpt2_piece(const char* at, const char* end) {
    const char* stop = skip_contraction(at, end, false);
    if (stop != at) return stop;
    const char* start = *at == ' ' ? at + 1 : at;
    if (start != end) {
        CharClass kind = read(start, end).kind;
        if (kind != CharClass::space) return skip(kind, start, end);
    }
    return skip_spaces(at, end);
}

const char* llama3_piece(const char* at, const char* end, size_t digits) {
    const char* stop = skip_contraction(at, end, true);
    if (stop != at) return stop;

    Character c = read(at, end);
    if (c.kind == CharClass::letter) return skip(CharClass::letter, at, end);
    if (c.kind == CharClass::number) return skip(CharClass::number, at, end, digits);
    if (!is_newline(*at) && is(CharClass::letter, at + c.size, end)) return skip(CharClass::letter, at + c.size, end);

    const char* start = *at == ' ' ? at + 1 : at;
    if (is(CharClass::other, start, end)) {
        stop = skip(CharClass::other, start, end);
        while (stop != end && is_newline(*stop)) ++stop;
        return stop;
    }

    // \s*[\r\n]+ : through the last newline of the spaces.
    const char* past_newline = at;
    for (const char* space = at; is(CharClass::space, space, end); space += read(space, end).size)
        if (is_newline(*space)) past_newline = space + 1;
    return past_newline != at ? past_newline : skip_spaces(at, end);
}

}  // namespace

size_t first_piece(SplitRule rule, std::string_view text) {
    const char* at = text.data();
    const char* end = at + text.size();
    const char* stop =
        rule == SplitRule::gpt2 ? gpt2_piece(at, end) : llama3_piece(at, end, rule == SplitRule::qwen2 ? 1 : 3);
    return static_cast<size_t>(stop - at);
}

}  // namespace quant
