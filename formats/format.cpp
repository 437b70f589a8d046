#include "formats/format.h"

namespace quant {
namespace {

const char* const elements[] = {"f32", "f16", "bf16", "s8", "u8", "u6", "u5", "u4", "e4m3"};
const char* const float_types[] = {"", "f32", "f16", "bf16"};
const char* const scale_codes[] = {"", "u6", "s8"};

bool is_unsigned(Element e) {
    return e == Element::u8 || e == Element::u6 || e == Element::u5 || e == Element::u4;
}

// The GGUF block types: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1; Q4_K, Q5_K; Q6_K.
bool ggml_valid(const Format& f) {
    if (f.granularity != Granularity::group || f.scale != FloatType::f16) return false;
    const bool minimum = f.zero == Zero::minimum;
    if (f.scale_code == ScaleCode::none) {
        if (f.group != 32 || f.super_group != 0) return false;
        if (f.element == Element::s8) return f.zero == Zero::none;
        if (f.element == Element::u4) return minimum || (f.zero == Zero::constant && f.zero_point == 8);
        return f.element == Element::u5 && (minimum || (f.zero == Zero::constant && f.zero_point == 16));
    }
    if (f.super_group != 256) return false;
    if (f.scale_code == ScaleCode::u6)
        return (f.element == Element::u4 || f.element == Element::u5) && f.group == 32 && minimum;
    return f.element == Element::u6 && f.group == 16 && f.zero == Zero::constant && f.zero_point == 32;
}

// Cuts the text up to the next ':' off.
std::string next_part(std::string& rest) {
    const size_t end = rest.find(':');
    std::string part = rest.substr(0, end);
    rest = end == std::string::npos ? std::string() : rest.substr(end + 1);
    return part;
}

// Decimal without sign or leading zero.
bool parse_number(const std::string& text, uint32_t limit, uint32_t* out) {
    if (text.empty() || text.size() > 5 || text[0] == '0') return false;
    uint32_t n = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return false;
        n = n * 10 + static_cast<uint32_t>(c - '0');
    }
    *out = n;
    return n <= limit;
}

bool parse_float_type(const std::string& text, FloatType* out) {
    for (uint8_t i = 1; i < 4; ++i) {
        if (text != float_types[i]) continue;
        *out = static_cast<FloatType>(i);
        return true;
    }
    return false;
}

// CODE*FLOAT/COLUMNS or FLOAT
bool parse_scale(const std::string& text, Format* f) {
    const size_t star = text.find('*'), slash = text.find('/');
    if (star == std::string::npos) return parse_float_type(text, &f->scale);
    if (slash == std::string::npos || slash < star) return false;
    const std::string code = text.substr(0, star);
    f->scale_code = code == "u6" ? ScaleCode::u6 : code == "s8" ? ScaleCode::s8 : ScaleCode::none;
    uint32_t columns = 0;
    if (f->scale_code == ScaleCode::none || !parse_number(text.substr(slash + 1), 65535, &columns)) return false;
    f->super_group = static_cast<uint16_t>(columns);
    return parse_float_type(text.substr(star + 1, slash - star - 1), &f->scale);
}

bool parse_granularity(const std::string& text, Format* f) {
    if (text == "tensor") f->granularity = Granularity::tensor;
    if (text == "channel") f->granularity = Granularity::channel;
    if (f->granularity != Granularity::none) return true;
    uint32_t n = 0;
    if (text.empty() || (text[0] != 'g' && text[0] != 'b') || !parse_number(text.substr(1), 65535, &n)) return false;
    f->granularity = text[0] == 'g' ? Granularity::group : Granularity::block;
    f->group = static_cast<uint16_t>(n);
    return true;
}

bool parse_zero(const std::string& text, Format* f) {
    uint32_t n = 0;
    if (text == "zp") {
        f->zero = Zero::integer;
    } else if (text == "min") {
        f->zero = Zero::minimum;
    } else if (!text.empty() && text[0] == 'z' && parse_number(text.substr(1), 255, &n)) {
        f->zero = Zero::constant;
        f->zero_point = static_cast<uint8_t>(n);
    } else {
        return false;
    }
    return true;
}

int64_t ceil_divide(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

// Entries of the arrays of scales and zeros.
int64_t scale_count(const Format& f, int64_t rows, int64_t cols) {
    if (f.granularity == Granularity::none || f.storage == Storage::ggml) return 0;
    if (f.granularity == Granularity::tensor) return 1;
    const int64_t bands = f.granularity == Granularity::block ? ceil_divide(rows, f.group) : rows;
    return bands * groups_per_row(f, cols);
}

}  // namespace

bool operator==(const Format& a, const Format& b) {
    return a.element == b.element && a.granularity == b.granularity && a.group == b.group && a.scale == b.scale &&
           a.scale_code == b.scale_code && a.super_group == b.super_group && a.zero == b.zero &&
           a.zero_point == b.zero_point && a.storage == b.storage;
}

std::string format_name(const Format& f) {
    std::string name = elements[static_cast<int>(f.element)];
    if (f.granularity == Granularity::tensor) name += ":tensor";
    if (f.granularity == Granularity::channel) name += ":channel";
    if (f.granularity == Granularity::group) name += ":g" + std::to_string(f.group);
    if (f.granularity == Granularity::block) name += ":b" + std::to_string(f.group);
    if (f.scale != FloatType::none) {
        const std::string scale = float_types[static_cast<int>(f.scale)];
        name += ':';
        if (f.scale_code == ScaleCode::none) {
            name += scale;
        } else {
            name += std::string(scale_codes[static_cast<int>(f.scale_code)]) + '*' + scale + '/' +
                    std::to_string(f.super_group);
        }
    }
    if (f.zero == Zero::constant) name += ":z" + std::to_string(f.zero_point);
    if (f.zero == Zero::integer) name += ":zp";
    if (f.zero == Zero::minimum) name += ":min";
    if (f.storage == Storage::ggml) name += ":ggml";
    return name;
}

bool format_parse(const std::string& text, Format* out) {
    Format f;
    std::string rest = text;
    const std::string element = next_part(rest);
    bool known = false;
    for (uint8_t i = 0; i < sizeof elements / sizeof *elements; ++i) {
        if (element != elements[i]) continue;
        f.element = static_cast<Element>(i);
        known = true;
    }
    if (!known) return false;
    if (!is_float(f.element)) {
        if (!parse_granularity(next_part(rest), &f) || !parse_scale(next_part(rest), &f)) return false;
        std::string part = next_part(rest);
        if (!part.empty() && part != "ggml") {
            if (!parse_zero(part, &f)) return false;
            part = next_part(rest);
        }
        if (part == "ggml") {
            f.storage = Storage::ggml;
        } else if (!part.empty()) {
            return false;
        }
    }
    if (!format_valid(f) || format_name(f) != text) return false;
    *out = f;
    return true;
}

bool format_valid(const Format& f) {
    if (is_float(f.element)) {
        Format plain;
        plain.element = f.element;
        return f == plain;
    }
    const bool grouped = f.granularity == Granularity::group || f.granularity == Granularity::block;
    if (f.granularity == Granularity::none || grouped != (f.group != 0) || f.scale == FloatType::none) return false;
    if ((f.zero == Zero::constant) != (f.zero_point != 0)) return false;
    if (f.storage == Storage::ggml) return ggml_valid(f);
    if (f.scale_code != ScaleCode::none || f.super_group != 0) return false;
    if (!is_unsigned(f.element)) return f.zero == Zero::none;
    return f.zero != Zero::none && f.zero_point < 1 << element_bits(f.element);
}

bool is_float(Element e) {
    return e == Element::f32 || e == Element::f16 || e == Element::bf16;
}

int64_t groups_per_row(const Format& f, int64_t cols) {
    if (f.granularity == Granularity::none) return 0;
    return f.group == 0 ? 1 : ceil_divide(cols, f.group);
}

size_t codes_row_bytes(const Format& f, int64_t cols) {
    if (f.storage == Storage::planar) return static_cast<size_t>(ceil_divide(cols * element_bits(f.element), 8));
    const int64_t block = f.super_group != 0 ? f.super_group : f.group;
    const bool minimum = f.zero == Zero::minimum;
    int64_t bits = block * element_bits(f.element) + (minimum ? 32 : 16);
    if (f.scale_code == ScaleCode::u6) bits += block / f.group * 6 * (minimum ? 2 : 1);
    if (f.scale_code == ScaleCode::s8) bits += block / f.group * 8;
    return static_cast<size_t>(ceil_divide(cols, block) * (bits / 8));
}

size_t codes_bytes(const Format& f, int64_t rows, int64_t cols) {
    return static_cast<size_t>(rows) * codes_row_bytes(f, cols);
}

size_t scales_bytes(const Format& f, int64_t rows, int64_t cols) {
    return static_cast<size_t>(scale_count(f, rows, cols)) * float_type_bytes(f.scale);
}

size_t zeros_bytes(const Format& f, int64_t rows, int64_t cols) {
    if (f.zero == Zero::integer) return static_cast<size_t>(scale_count(f, rows, cols));
    return f.zero == Zero::minimum ? scales_bytes(f, rows, cols) : 0;
}

double bits_per_weight(const Format& f, int64_t rows, int64_t cols) {
    const double bytes = static_cast<double>(codes_bytes(f, rows, cols)) +
                         static_cast<double>(scales_bytes(f, rows, cols)) +
                         static_cast<double>(zeros_bytes(f, rows, cols));
    return rows > 0 && cols > 0 ? bytes * 8 / (static_cast<double>(rows) * static_cast<double>(cols)) : 0;
}

int64_t stored_row(const WeightView& w, int64_t row) {
    if (w.head_rows == 0) return row;
    const int64_t in_head = row % w.head_rows;
    return row - in_head + in_head % 2 * (w.head_rows / 2) + in_head / 2;
}

}  // namespace quant
