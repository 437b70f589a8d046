#include "core/scheme.h"

#include <vector>

namespace quant {
namespace {

const char* const listed[] = {"f32",   "f16",        "bf16",      "a16w8",         "a16w8:g128", "a16w8:g32:sym",
                              "a16w4", "a16w4:g128", "a16w4:g32", "a16w4:g32:sym", "a8w8",       "a8w8:asym",
                              "fp8",   "fp8:tensor", "fp8:block", "a8w4:fp8"};

struct Base {
    const char* name;
    Element symmetric, asymmetric;  // asymmetric codes are unsigned: the minimum is code 0
    FloatType scale;
    Activation activation;
    bool asymmetric_default;  // when the name does not say
    uint8_t symmetric_zero;   // Zero::constant of the symmetric kind, for unsigned codes
    bool group, tensor, block;
    uint16_t group_default = 0;  // when the name does not say; 0: one scale per channel
    bool quantized() const { return scale != FloatType::none; }
    bool has_asymmetric() const { return symmetric != asymmetric || symmetric_zero != 0; }
};
constexpr Base bases[] = {
    {"f32", Element::f32, Element::f32, FloatType::none, Activation::f32, false, 0, false, false, false},
    {"f16", Element::f16, Element::f16, FloatType::none, Activation::f32, false, 0, false, false, false},
    {"bf16", Element::bf16, Element::bf16, FloatType::none, Activation::f32, false, 0, false, false, false},
    {"a16w8", Element::s8, Element::u8, FloatType::f16, Activation::f32, true, 0, true, false, false},
    {"a16w4", Element::u4, Element::u4, FloatType::f16, Activation::f32, true, 8, true, false, false},
    {"a8w8", Element::s8, Element::u8, FloatType::f16, Activation::s8, false, 0, false, true, false},
    {"fp8", Element::e4m3, Element::e4m3, FloatType::f32, Activation::e4m3, false, 0, false, true, true},
    {"a8w4:fp8", Element::u4, Element::u4, FloatType::f16, Activation::e4m3, false, 8, true, false, false, 128},
};

// What follows a base, "" or ":g128:sym", as words; false: `text` is not of this base.
bool split(const std::string& text, const std::string& base, std::vector<std::string>* words) {
    if (text.compare(0, base.size(), base) != 0) return false;
    if (text.size() > base.size() && text[base.size()] != ':') return false;
    words->clear();
    for (size_t i = base.size(); i < text.size(); ++i) {
        if (text[i] == ':')
            words->emplace_back();
        else
            words->back() += text[i];
    }
    return true;
}

// "g128" -> 128; 0 if it is not a group.
int parse_group(const std::string& text) {
    if (text.size() < 2 || text.size() > 6 || text[0] != 'g' || text[1] == '0') return 0;
    int group = 0;
    for (size_t i = 1; i < text.size(); ++i) {
        if (text[i] < '0' || text[i] > '9') return 0;
        group = group * 10 + (text[i] - '0');
    }
    return group <= 0xffff ? group : 0;
}

bool set_granularity(const Base& base, const std::string& text, Format* f) {
    if (text == "channel") {
        f->granularity = Granularity::channel;
        f->group = 0;
    } else if (text == "tensor" && base.tensor) {
        f->granularity = Granularity::tensor;
    } else if (text == "block" && base.block) {
        f->granularity = Granularity::block;
        f->group = 128;
    } else if (int group = base.group ? parse_group(text) : 0) {
        f->granularity = Granularity::group;
        f->group = static_cast<uint16_t>(group);
    } else {
        return false;
    }
    return true;
}

}  // namespace

bool operator==(const Scheme& a, const Scheme& b) {
    return a.weight == b.weight && a.activation == b.activation;
}

bool scheme_parse(const std::string& text, Scheme* out) {
    std::vector<std::string> words;
    for (const Base& base : bases) {
        if (!split(text, base.name, &words)) continue;
        Scheme s;
        s.activation = base.activation;
        s.weight.scale = base.scale;
        bool asymmetric = base.asymmetric_default;
        size_t next = 0;
        if (base.quantized()) {
            s.weight.granularity = base.group_default ? Granularity::group : Granularity::channel;
            s.weight.group = base.group_default;
            if (next < words.size() && set_granularity(base, words[next], &s.weight)) ++next;
            if (next < words.size() && (words[next] == "sym" || (words[next] == "asym" && base.has_asymmetric())))
                asymmetric = words[next++] == "asym";
        }
        if (next != words.size()) return false;
        s.weight.element = asymmetric ? base.asymmetric : base.symmetric;
        if (asymmetric) {
            s.weight.zero = Zero::minimum;
        } else if (base.symmetric_zero) {
            s.weight.zero = Zero::constant;
            s.weight.zero_point = base.symmetric_zero;
        }
        // A minimum of a whole matrix is not encoded by anything.
        if (asymmetric && s.weight.granularity == Granularity::tensor) return false;
        if (!format_valid(s.weight)) return false;
        *out = s;
        return true;
    }
    return false;
}

std::string scheme_name(const Scheme& s) {
    for (const Base& base : bases) {
        std::string name = base.name;
        if (s.weight.granularity == Granularity::group) {
            if (s.weight.group != base.group_default) name += ":g" + std::to_string(s.weight.group);
        } else if (s.weight.granularity == Granularity::channel && base.group_default) {
            name += ":channel";
        }
        if (s.weight.granularity == Granularity::tensor) name += ":tensor";
        if (s.weight.granularity == Granularity::block) name += ":block";
        bool asymmetric = s.weight.zero == Zero::minimum;
        if (asymmetric != base.asymmetric_default) name += asymmetric ? ":asym" : ":sym";
        Scheme parsed;
        if (scheme_parse(name, &parsed) && parsed == s) return name;
    }
    return format_name(s.weight);
}

std::string activation_name(Activation a) {
    switch (a) {
        case Activation::f32:
            return "f32";
        case Activation::s8:
            return "s8:token";
        case Activation::e4m3:
            return "e4m3:token";
    }
    return "?";
}

const char* scheme_listed(int index) {
    return index >= 0 && index < static_cast<int>(sizeof(listed) / sizeof(listed[0])) ? listed[index] : nullptr;
}

}  // namespace quant
